from .autoencoder import MultimodalAutoencoder as MultimodalAutoencoder
from .decoder import MultimodalDecoder as MultimodalDecoder
from .encoder import AudioEncoder as AudioEncoder
from .encoder import MultimodalEncoder as MultimodalEncoder
from .encoder import TextEncoder as TextEncoder
from .encoder import VideoEncoder as VideoEncoder
from .span import SpanAutoencoder as SpanAutoencoder
