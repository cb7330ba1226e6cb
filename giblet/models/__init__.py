"""The multimodal autoencoder and its parts."""

from giblet.models.autoencoder import MultimodalAutoencoder
from giblet.models.decoder import MultimodalDecoder
from giblet.models.encoder import AudioEncoder, MultimodalEncoder, TextEncoder, VideoEncoder
from giblet.models.span import Span, SpanAutoencoder

__all__ = [
    "AudioEncoder",
    "MultimodalAutoencoder",
    "MultimodalDecoder",
    "MultimodalEncoder",
    "Span",
    "SpanAutoencoder",
    "TextEncoder",
    "VideoEncoder",
]
