"""Live lesions: sliders over the pure functions of `giblet.analysis.lesions`."""

import io
import threading
from collections.abc import Sequence
from dataclasses import replace

import anywidget
import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from giblet.analysis.dissociation import decoding_failures, intact_table
from giblet.analysis.lesion_cost import LesionEffect, mean_over_trs, size_bin
from giblet.analysis.lesions import FILLS, MODES, N_PERMUTE, Brain, Lesion, lesion_effects
from giblet.data import MultimodalDataset
from giblet.models import MultimodalAutoencoder
from giblet.plotting.brain import BrainPicture
from giblet.plotting.media import embed_sounds
from giblet.plotting.style import styled
from giblet.regions import Regions, regions_of

SOURCES = ("measured", "predicted")
N_DECODES = (
    4000  # of a live null: fewer TRs where the movie is long, so that bars follow within seconds
)
SETTLE_SECONDS = 0.4  # after the last change, sound, text and bars follow


class ClickableImage(anywidget.AnyWidget):
    """A PNG that tells where it was clicked.

    `clicked` is [x, y] in 0..1 from the top left, and a count.
    """

    png = traitlets.Bytes().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    clicked = traitlets.List(traitlets.Float()).tag(sync=True)
    _esm = """
    function render({ model, el }) {
      const image = document.createElement("img");
      image.style.maxWidth = "100%";
      image.style.cursor = "pointer";
      const draw = () => {
        if (image.src) URL.revokeObjectURL(image.src);
        image.src = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
        image.alt = model.get("alt");
      };
      let count = 0;
      image.addEventListener("click", (event) => {
        const box = image.getBoundingClientRect();
        const across = (event.clientX - box.left) / box.width;
        const place = [across, (event.clientY - box.top) / box.height];
        model.set("clicked", [...place, ++count]);
        model.save_changes();
      });
      model.on("change:png", draw);
      draw();
      el.appendChild(image);
      return () => { model.off("change:png", draw); URL.revokeObjectURL(image.src); };
    }
    export default { render };
    """


def encode_png(picture: np.ndarray) -> bytes:
    """uint8 picture (height, width) or (height, width, 3) as PNG, as fast as it goes."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png", compress_level=1)
    return file.getvalue()


class LesionExplorer:
    """Lesion bottleneck units and brain regions and see, hear and read the movie change.

    Display `widget`. The picture follows every change at once; sound, text and the bars of the
    effect follow when the controls rest. Below a bar stands the intact score: where it is no better
    than that of the training mean, a sentence on top says that its lesions mean nothing. `close()`
    ends it.

    A data set of arrays shows what it has: the film where its video is frames, the brain where
    coordinates are known, and the bars in any case.

    Parameters
    ----------
    model : MultimodalAutoencoder
    dataset : MultimodalDataset with `average=True`
        Held-out TRs alone.
    regions : Regions, optional
        Default those of the data set, see `regions_of`.
    n_permute : int
        Random lesions of a null.
    random_state : int
        Of the null.
    """

    def __init__(
        self,
        model: MultimodalAutoencoder,
        dataset: MultimodalDataset,
        regions: Regions | None = None,
        n_permute: int = N_PERMUTE,
        random_state: int = 0,
    ):
        self.model = model
        self.dataset = dataset
        self.regions = regions or regions_of(dataset)
        self.n_permute = n_permute
        self.random_state = random_state
        self.brains = {source: Brain(model, dataset, source) for source in SOURCES}
        self.n_voxels = dataset.model_dims["n_voxels"]
        places = dataset.coordinates
        self.cortex = None if places is None else BrainPicture(places)
        self.has_film = "video" in dataset.present and dataset.video_processor is not None
        self.nulls: dict[tuple, dict] = {}
        self.changes: dict[tuple, torch.Tensor] = {}  # what each region adds to the bottleneck
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._controls()
        self._outputs()
        self.draw()
        self.settle()

    def _controls(self) -> None:
        n_units = self.brains["measured"].bottleneck.shape[1]
        names = self.regions.names
        style = {"description_width": "90px"}
        wide = {"layout": widgets.Layout(width="420px"), "style": style}
        buttons = {"layout": widgets.Layout(display="flex"), "style": style}
        self.tr = widgets.IntSlider(0, 0, self.dataset.n_trs - 1, description="held-out TR", **wide)
        self.play = widgets.Play(min=0, max=self.dataset.n_trs - 1, interval=400)
        self._link = widgets.jslink((self.play, "value"), (self.tr, "value"))
        self.source = widgets.ToggleButtons(options=SOURCES, description="brain", **buttons)
        self.units = widgets.IntRangeSlider(
            value=(0, 0), min=0, max=n_units, description="units", **wide
        )
        self.region = widgets.SelectMultiple(
            options=names, rows=min(8, len(names)), description="regions", **wide
        )
        self.mode = widgets.ToggleButtons(options=MODES, description="lesion", **buttons)
        self.fill = widgets.Dropdown(options=FILLS, description="fill", **wide)
        self.strength = widgets.FloatSlider(
            1.0, min=0, max=1, step=0.05, description="strength", **wide
        )
        self.controls = (
            self.tr,
            self.source,
            self.units,
            self.region,
            self.mode,
            self.fill,
            self.strength,
        )
        for control in self.controls:
            control.observe(self._changed, "value")

    def _outputs(self) -> None:
        label = self.dataset.label
        shown = {True: None, False: "none"}
        self.picture = widgets.Image(
            format="png", layout=widgets.Layout(width="860px", display=shown[self.has_film])
        )
        self.picture_brain = ClickableImage(
            alt="cortex, lesion in red; click a region to lesion it"
        )
        self.picture_brain.layout.display = shown[self.cortex is not None]
        self.picture_brain.observe(self._clicked, "clicked")
        bars = widgets.Layout(width="336px", height="192px", flex="0 0 auto")
        self.bars = widgets.Image(format="png", layout=bars)
        self.sounds = widgets.HTML()
        self.words = widgets.HTML()
        self.title = widgets.HTML()
        self.failures = widgets.HTML("<br>".join(decoding_failures(intact_table(self.brains))))
        if self.has_film:
            names = (f"{label}film", "intact", "lesioned", "difference")
            self.title.value = f"<b>{' &nbsp;|&nbsp; '.join(names)}</b>"
        left = widgets.VBox(
            [widgets.HBox([self.tr, self.play]), self.source, self.units, self.region]
        )
        right = widgets.VBox([self.mode, self.fill, self.strength, self.picture_brain])
        right.layout.width = "440px"
        below = widgets.HBox([self.bars, widgets.VBox([self.words, self.sounds])])
        wrap = widgets.Layout(
            flex_flow="row wrap"
        )  # a narrow page shows the columns below each other
        above = widgets.HBox([left, right], layout=wrap)
        self.widget = widgets.VBox([self.failures, above, self.title, self.picture, below])

    def _changed(self, _change) -> None:
        self.draw()
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if not self._closed:
                self._timer = threading.Timer(SETTLE_SECONDS, self.settle)
                self._timer.daemon = True
                self._timer.start()

    def _clicked(self, change) -> None:
        if self.cortex is None:
            return
        x, y, _ = change["new"]
        height, width = self.cortex.voxel.shape
        voxel = self.cortex.voxel[min(int(y * height), height - 1), min(int(x * width), width - 1)]
        label = -1 if voxel < 0 else self.regions.labels[voxel]
        if label >= 0:
            chosen = set(self.region.value) ^ {self.regions.names[label]}
            self.region.value = tuple(name for name in self.regions.names if name in chosen)

    @property
    def lesioned_voxels(self) -> np.ndarray:
        """(n_voxels,) bool of the chosen regions."""
        return np.isin(
            self.regions.labels, [self.regions.names.index(name) for name in self.region.value]
        )

    @property
    def lesioned_units(self) -> np.ndarray:
        """Indices of the chosen units, first included, last excluded."""
        return np.arange(*self.units.value)

    @property
    def brain(self) -> Brain:
        """The chosen brain, intact."""
        return self.brains[self.source.value]

    @property
    def lesion(self) -> Lesion:
        """The lesion of the controls."""
        return Lesion(
            self.brain,
            self.lesioned_voxels,
            self.lesioned_units,
            self.fill.value,
            self.strength.value,
            self.mode.value,
        )

    def bottleneck(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Bottleneck of some TRs with the lesion of the controls: (n_rows, bottleneck_dim)."""
        fill = self.fill.value
        key = (self.source.value, fill)
        if key not in self.changes:
            masks = (self.regions.voxels(name) for name in self.regions.names)
            self.changes[key] = torch.stack([self.brain.change(mask, fill) for mask in masks])
        chosen = [self.regions.names.index(name) for name in self.region.value]
        change = self.changes[key][chosen].sum(0) if chosen else None
        lesioned = self.brain.changed(self.lesion, change)
        return lesioned[torch.as_tensor(np.asarray(rows))]

    @torch.inference_mode()
    def _frames(self, bottleneck: torch.Tensor) -> np.ndarray:
        """The middle frame that each row gives: (n_rows, *frame_shape)."""
        video = self.dataset.video_processor
        n_pixels = int(np.prod(video.frame_shape))
        before = -int(self.dataset.offsets[0]) * video.n_frames  # of the TRs of context
        middle = before + video.n_frames // 2
        pixels = slice(middle * n_pixels, (middle + 1) * n_pixels)
        frames = self.model.decode_pixels(bottleneck, pixels)
        return frames.float().cpu().numpy().reshape(-1, *video.frame_shape)

    def draw(self) -> None:
        """Draw the movie, intact, lesioned and their difference, and the lesion on the brain."""
        with self._lock:
            if self.has_film:
                self._draw_film(self.tr.value)
            if self.cortex is None:
                return
            voxels = self.lesioned_voxels
            hurt = ~voxels if self.mode.value == "only" and voxels.any() else voxels
            self.picture_brain.png = encode_png(self.cortex.paint({(214, 39, 40): hurt}))

    def _draw_film(self, row: int) -> None:
        both = torch.cat([self.brain.bottleneck[[row]], self.bottleneck([row])])
        intact, lesioned = self._frames(both)
        video = self.dataset.video_processor
        film = self.dataset.features.video[self.dataset.tr_index[row]]
        frame = film.reshape(-1, *video.frame_shape)[video.n_frames // 2] / np.float32(255)
        shown = [frame, intact, lesioned, 0.5 + lesioned - intact]
        gap = ((0, 0), (0, 4)) + ((0, 0),) * (frame.ndim - 2)
        picture = np.concatenate([np.pad(x, gap, constant_values=1) for x in shown], axis=1)
        self.picture.value = encode_png((picture.clip(0, 1) * 255).astype(np.uint8))

    def settle(self) -> None:
        """Sound and text of the TR, and the bars of the effect beside their null."""
        with self._lock:
            if self._closed:
                return
            row = self.tr.value
            with torch.inference_mode():
                both = torch.cat([self.brain.bottleneck[[row]], self.bottleneck([row])])
                decoded = self.model.core.decode(both)
                outputs = {name: values.cpu() for name, values in decoded.items()}
            if "text" in self.dataset.present and self.dataset.text_processor is not None:
                self._tell(outputs["text_recon"].float(), row)
            if "audio" in self.dataset.present and self.dataset.audio_processor is not None:
                self._sound(outputs["audio_recon"], row)
            self._draw_bars()

    def _tell(self, text: torch.Tensor, row: int) -> None:
        film = self.dataset.stimulus("text", self.dataset.tr_index[[row]])
        own = self.dataset.without_context("text", torch.cat([film, text]))
        nearest = self.dataset.text_processor.features_to_text(own)
        lines = zip(("film", "intact", "lesioned"), nearest, strict=True)
        self.words.value = "<br>".join(
            f"<b>{name}</b>: {best[0][0]} ({best[0][1]:.2f})" for name, best in lines
        )

    def _sound(self, audio: torch.Tensor, row: int) -> None:
        film = self.dataset.stimulus("audio", self.dataset.tr_index[[row]])
        own = [
            self.dataset.without_context("audio", values) for values in (film, audio[:1], audio[1:])
        ]
        parts = zip(("film", "intact", "lesioned"), own, strict=True)
        sounds = {name: self.dataset.audio_processor.features_to_sound(x) for name, x in parts}
        self.sounds.value = embed_sounds(sounds).data

    def effects(self) -> dict[str, LesionEffect]:
        """Effect in each modality of the lesion of the controls, over TRs spread over the split."""
        n_rows = min(self.dataset.n_trs, max(8, N_DECODES // self.n_permute))
        rows = np.linspace(0, self.dataset.n_trs - 1, n_rows).astype(int)
        brain = self.brain.at(rows)
        lesioned = brain.of_bottlenecks(self.bottleneck(rows)[None])
        scores = {name: values[0] for name, values in lesioned.items()}
        lesion = replace(self.lesion, brain=brain)
        return lesion_effects(lesion, scores, self._null(lesion))

    def _null(self, lesion: Lesion) -> dict[str, np.ndarray]:
        """Costs of about as large random lesions; kept for the next time."""
        size = size_bin(lesion.n_voxels, self.n_voxels)
        how = (self.source.value, lesion.fill, lesion.strength, lesion.mode)
        key = (size, lesion.n_units, *how)
        if key not in self.nulls:
            as_large = replace(lesion, mask=np.arange(self.n_voxels) < size)
            self.nulls[key] = as_large.null(self.n_permute, self.random_state)
        return self.nulls[key]

    @styled
    def _draw_bars(self) -> None:
        effects = self.effects()
        figure = Figure(figsize=(4.2, 2.4), dpi=80, layout="constrained")
        ax = figure.subplots()
        place = np.arange(len(effects))
        null = np.array([effect.null for effect in effects.values()])
        null = np.where(np.isfinite(null).all(1, keepdims=True), null, np.nan)
        low, high = np.quantile(null, [0.025, 0.975], axis=1)
        lost = np.array([effect.effect for effect in effects.values()])
        lost = np.where(np.isfinite(lost), lost, np.nan)
        ax.bar(place, lost, color="tab:red", width=0.5, label="this lesion")
        ax.bar(
            place,
            high - low,
            bottom=low,
            width=0.8,
            color="0.6",
            alpha=0.6,
            label="95 % of random ones",
        )
        ax.axhline(0, color="0.3", lw=1)
        told = [self._tell_effect(name, effect) for name, effect in effects.items()]
        ax.set_xticks(place, told, fontsize="small")
        ax.set_ylabel("lost (R2; text: cosine)", fontsize="small")
        ax.set_title(f"{self.dataset.label}{self.source.value} brain", fontsize="small")
        ax.legend(frameon=False, fontsize="x-small")
        png = io.BytesIO()
        figure.savefig(png, format="png")
        self.bars.value = png.getvalue()

    @staticmethod
    def _tell_effect(name: str, effect: LesionEffect) -> str:
        """What stands below a bar."""
        p = "no p" if np.isnan(effect.p) else f"p = {effect.p:.3f}"
        return f"{name}, intact {mean_over_trs(effect.intact):.2f}\n{p}"

    def close(self) -> None:
        """Stop listening and remove the widgets."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            for control in self.controls:
                control.unobserve_all()
            self.picture_brain.unobserve_all()
            _close(self.widget)


def _close(widget: widgets.Widget) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()
