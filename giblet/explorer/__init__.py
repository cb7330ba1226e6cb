"""Live lesions: one app over the pure functions of `giblet.analysis.lesions`."""

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from giblet.analysis.dissociation import decoding_failures, intact_table
from giblet.analysis.lesion_cost import LesionEffect, mean_over_trs, size_bin
from giblet.analysis.lesions import FILLS, MODES, N_PERMUTE, Brain, Lesion, lesion_effects
from giblet.data import MultimodalDataset
from giblet.explorer.app import App, Controls
from giblet.explorer.clips import ClipMaker, encode_png, to_uint8
from giblet.models import MultimodalAutoencoder
from giblet.plotting.brain import VIEWS, BrainPicture
from giblet.regions import Regions, presets_of, regions_of

SOURCES = ("measured", "predicted")
# Decodes of a live null: fewer TRs where the movie is long, so that bars follow within seconds.
N_DECODES = 4000
SETTLE_SECONDS = 0.4  # after the last change, clip, sentences and bars follow
VIEW_WIDTH = 240  # pixels of one view of the brain
STAGES = ("sentences", "clip", "effects", "changes")  # in the order of need


class LesionExplorer:
    """Lesion brain regions and bottleneck units and see, hear and read the movie change.

    Display `widget`. Pictures and brain follow every change at once; the clip with its sound, the
    nearest sentences and the cost in each modality follow when the controls rest. Where an intact
    score is no better than that of the training mean, a sentence says that its lesions mean
    nothing. `set` does in code what the controls do, `close` ends it.

    A data set of arrays shows what it has: pictures where its video is frames, the brain where
    coordinates are known, and the costs in any case.

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
    presets : {name: (n_voxels,) bool}, optional
        Lesions to begin with, default those of `presets_of`.

    Attributes
    ----------
    widget : App
    controls : Controls
        As they are now.
    brains : {source: Brain}
        Intact.
    """

    def __init__(
        self,
        model: MultimodalAutoencoder,
        dataset: MultimodalDataset,
        regions: Regions | None = None,
        n_permute: int = N_PERMUTE,
        random_state: int = 0,
        presets: Mapping[str, np.ndarray] | None = None,
    ):
        self.dataset = dataset
        self.regions = regions or regions_of(dataset)
        self.presets = dict(presets_of(dataset, self.regions) if presets is None else presets)
        self.n_permute = n_permute
        self.random_state = random_state
        self.brains = {source: Brain(model, dataset, source) for source in SOURCES}
        self.n_voxels = dataset.model_dims["n_voxels"]
        self.clips = ClipMaker(model, dataset)
        places = dataset.coordinates
        self.cortex = None if places is None else BrainPicture(places, VIEW_WIDTH)
        self.nulls: dict[tuple, dict] = {}
        self._changes: dict[tuple, torch.Tensor] = {}
        self._drawn: dict[str, tuple] = {}
        self._intact: tuple[tuple, np.ndarray] = ((), np.empty(0))  # of which moment, its frame
        self._lock = threading.RLock()  # of what the app shows
        self._work = threading.Lock()  # one thread at a time makes what takes seconds
        self._timer: threading.Timer | None = None
        self._closed = False
        self.widget = App(facts=self._facts(), state=Controls().state)
        self.widget.observe(self._changed, "state")
        self._changed()

    def _facts(self) -> dict:
        dataset = self.dataset
        facts = {
            "label": dataset.label.removesuffix(": "),
            "failures": decoding_failures(intact_table(self.brains)),
            "sources": SOURCES,
            "modes": MODES,
            "fills": FILLS,
            "presets": list(self.presets),
            "regions": self.regions.names,
            "n_units": self.brains["measured"].bottleneck.shape[1],
            "tr_index": dataset.tr_index.tolist(),
            "seconds": dataset.tr,
            "n_permute": self.n_permute,
            "has": {name: name in self.clips.shown for name in ("video", "audio", "text")},
        }
        if self.cortex is not None:
            voxel = self.cortex.voxel
            region = np.where(voxel >= 0, self.regions.labels[voxel], -1).astype("<i2")
            facts["views"] = [" ".join(view) for view in VIEWS]
            facts["height"] = len(region)
            facts["region_of_pixel"] = zlib.compress(region.tobytes())
            facts["shade"] = zlib.compress(self.cortex.shade.tobytes())
        return facts

    @property
    def controls(self) -> Controls:
        """As they are now."""
        state = self.widget.state
        lists = {"regions": tuple(state["regions"]), "units": tuple(state["units"])}
        return Controls(**(state | lists))

    def set(self, **changes) -> None:
        """Change some controls: `set(regions=("Visual",), units=(0, 16))`.

        Parameters
        ----------
        **changes
            See `Controls`.

        Raises
        ------
        ValueError
            If there is no such TR, brain, preset, region, unit, mode or fill.
        """
        controls = replace(self.controls, **changes)
        choices = {
            "source": SOURCES,
            "preset": ("", *self.presets),
            "mode": MODES,
            "fill": FILLS,
        }
        for name, allowed in choices.items():
            value = getattr(controls, name)
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}.")
        for name in controls.regions:
            self.regions.voxels(name)
        last_tr = self.dataset.n_trs - 1
        if not 0 <= controls.tr <= last_tr:
            raise ValueError(f"tr is {controls.tr}, expected 0 to {last_tr}.")
        n_units = self.brain.bottleneck.shape[1]
        if not 0 <= controls.units[0] <= controls.units[1] <= n_units:
            raise ValueError(
                f"units are {controls.units}, expected (first, last) from 0 to {n_units}."
            )
        self.widget.state = controls.state

    def _changed(self, _change=None) -> None:
        self.draw()
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if not self._closed:
                self._timer = threading.Timer(SETTLE_SECONDS, self.settle)
                self._timer.daemon = True
                self._timer.start()

    @property
    def brain(self) -> Brain:
        """The chosen brain, intact."""
        return self.brains[self.controls.source]

    @property
    def lesion(self) -> Lesion:
        """The lesion of the controls."""
        return self._lesion(self.controls)

    def _lesion(self, controls: Controls) -> Lesion:
        return Lesion(
            self.brains[controls.source],
            self._mask(controls),
            np.arange(*controls.units),
            controls.fill,
            controls.strength,
            controls.mode,
        )

    def _parts(self, controls: Controls) -> list[tuple[str, np.ndarray]]:
        """Name and voxels of the preset and of each region that is chosen."""
        parts = [(f"region {name}", self.regions.voxels(name)) for name in controls.regions]
        if controls.preset:
            parts.append((f"preset {controls.preset}", self.presets[controls.preset]))
        return parts

    def _mask(self, controls: Controls) -> np.ndarray:
        mask = np.zeros(self.n_voxels, bool)
        for _, voxels in self._parts(controls):
            mask |= voxels
        return mask

    def bottleneck(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Bottleneck of some TRs with the lesion of the controls: (n_rows, bottleneck_dim)."""
        return self._bottleneck(self.controls, rows)

    def _bottleneck(self, controls: Controls, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        lesion = self._lesion(controls)
        lesioned = lesion.brain.changed(lesion, self._change(controls, lesion))
        return lesioned[torch.as_tensor(np.asarray(rows))]

    def _change(self, controls: Controls, lesion: Lesion) -> torch.Tensor | None:
        """What the lesion of the voxels adds to the bottleneck; what its parts add is kept."""
        parts = self._parts(controls)
        if lesion.n_voxels == 0:
            return None
        if sum(np.count_nonzero(voxels) for _, voxels in parts) > lesion.n_voxels:  # they overlap
            parts = [(f"{controls.preset} {sorted(controls.regions)}", self._mask(controls))]
        brain, fill = controls.source, controls.fill
        return torch.stack([self._kept_change(brain, fill, *part) for part in parts]).sum(0)

    def _kept_change(self, source: str, fill: str, name: str, voxels: np.ndarray) -> torch.Tensor:
        key = (source, fill, name)
        if key not in self._changes:
            self._changes[key] = self.brains[source].change(voxels, fill)
        return self._changes[key]

    def draw(self) -> None:
        """Draw the frames of the TR, intact and lesioned, and the lesion on the brain."""
        with self._lock, self.widget.hold_sync():
            if self._closed:
                return
            controls = self.controls
            if "video" in self.clips.shown:
                self._draw_frames(controls)
            hurt = self._mask(controls)
            n_units = controls.units[1] - controls.units[0]
            if controls.mode == "only" and hurt.any():
                hurt = ~hurt
            self.widget.summary = _summary(int(hurt.sum()), self.n_voxels, n_units)
            if self.cortex is not None:
                self.widget.hurt = np.packbits(self.cortex.pixels(hurt)).tobytes()

    def _draw_frames(self, controls: Controls) -> None:
        row = controls.tr
        moment = (row, controls.source)
        if self._intact[0] != moment:
            before = self.brains[controls.source].bottleneck[[row]]
            self._intact = moment, self.clips.middle_frames(before)[0]
        intact = self._intact[1]
        lesioned = self.clips.middle_frames(self._bottleneck(controls, [row]))[0]
        self._show("movie", (row,), lambda: self.clips.middle_of_movie(row))
        self._show("intact", moment, lambda: to_uint8(intact))
        self._show("lesioned", (controls,), lambda: to_uint8(lesioned))
        self._show("difference", (controls,), lambda: to_uint8(0.5 + lesioned - intact))

    def _show(self, name: str, key: tuple, picture: Callable[[], np.ndarray]) -> None:
        """Encode a picture, unless that of `key` is shown already."""
        if self._drawn.get(name) != key:
            self._drawn[name] = key
            setattr(self.widget, name, encode_png(picture()))

    def settle(self) -> None:
        """Make sentences, clip and effects; stop where the controls change meanwhile."""
        controls = self.controls
        for stage in STAGES:
            with self._work:
                if self._closed or controls != self.controls:
                    return
                made = getattr(self, f"_make_{stage}")(controls)
            with self._lock, self.widget.hold_sync():
                if self._closed or controls != self.controls:
                    return
                for name, value in made.items():
                    setattr(self.widget, name, value)

    def _make_clip(self, controls: Controls) -> dict[str, dict]:
        if not self.clips.shown & {"video", "audio"}:
            return {}
        rows = self.clips.rows(controls.tr)
        intact = self.brains[controls.source].bottleneck[rows]
        before = self.widget.clip_before
        of = {"tr": controls.tr, "source": controls.source}
        if before.get("of") != of:
            before = {"of": of} | self.clips.before(rows, intact)
        after = self.clips.after(intact, self._bottleneck(controls, rows))
        return {"clip_before": before, "clip_after": {"of": controls.state} | after}

    def _make_sentences(self, controls: Controls) -> dict[str, dict]:
        row = controls.tr
        if "text" not in self.clips.shown:
            return {}
        before = self.brains[controls.source].bottleneck[[row]]
        both = torch.cat([before, self._bottleneck(controls, [row])])
        return {"sentences": {"of": controls.state, "rows": self.clips.sentences(row, both)}}

    def _make_effects(self, controls: Controls) -> dict[str, dict]:
        score = dict.fromkeys(self.brains[controls.source].mean_error, "R2") | {"text": "cosine"}
        rows = []
        for name, effect in self._effects(controls).items():
            drawn = effect.null if np.isfinite(effect.null).all() else np.full(1, np.nan)
            low, high = np.quantile(drawn, [0.025, 0.975])
            intact = mean_over_trs(effect.intact)
            numbers = {"intact": intact, "lost": effect.effect, "low": low, "high": high}
            numbers["p"] = effect.p
            known = {
                key: float(value) if np.isfinite(value) else None for key, value in numbers.items()
            }
            rows.append({"name": name, "score": score.get(name, "share of codes")} | known)
        return {"effects": {"of": controls.state, "rows": rows}}

    def _make_changes(self, controls: Controls) -> dict:
        """What each preset and region adds to the bottleneck: the next lesion is shown faster."""
        every = Controls(regions=self.regions.names)
        parts = [part for name in self.presets for part in self._parts(Controls(preset=name))]
        for part in parts + self._parts(every):
            self._kept_change(controls.source, controls.fill, *part)
        return {}

    def effects(self) -> dict[str, LesionEffect]:
        """Effect in each modality of the lesion of the controls, over TRs spread over the split."""
        return self._effects(self.controls)

    def _effects(self, controls: Controls) -> dict[str, LesionEffect]:
        n_rows = min(self.dataset.n_trs, max(8, N_DECODES // self.n_permute))
        rows = np.linspace(0, self.dataset.n_trs - 1, n_rows).astype(int)
        lesion = self._lesion(controls)
        brain = lesion.brain.at(rows)
        lesioned = brain.of_bottlenecks(self._bottleneck(controls, rows)[None])
        scores = {name: values[0] for name, values in lesioned.items()}
        lesion = replace(lesion, brain=brain)
        return lesion_effects(lesion, scores, self._null(lesion, controls.source))

    def _null(self, lesion: Lesion, source: str) -> dict[str, np.ndarray]:
        """Costs of about as large random lesions; kept for the next time."""
        size = size_bin(lesion.n_voxels, self.n_voxels)
        key = (size, lesion.n_units, source, lesion.fill, lesion.strength, lesion.mode)
        if key not in self.nulls:
            as_large = replace(lesion, mask=np.arange(self.n_voxels) < size)
            self.nulls[key] = as_large.null(self.n_permute, self.random_state)
        return self.nulls[key]

    def close(self) -> None:
        """Stop listening and remove the app."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self.widget.unobserve_all()
            self.widget.close()


def _summary(n_lesioned: int, n_voxels: int, n_units: int) -> str:
    """What is lesioned, in words."""
    told = [f"{n_lesioned:,} of {n_voxels:,} voxels"] if n_lesioned else []
    told += [f"{n_units:,} unit{'s' * (n_units != 1)}"] if n_units else []
    return f"lesioned: {', '.join(told)}" if told else "no lesion"
