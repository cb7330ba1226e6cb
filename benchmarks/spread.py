"""Do the notebooks' numbers hold on other CPUs? Run them in the arithmetic of several, on this one.

    python benchmarks/spread.py [--notebooks 04 05] [--output FILE.csv] [--quick]

PyTorch, oneDNN, MKL and OpenBLAS choose other instructions, and so other roundings, on another CPU
and with another number of threads; training amplifies the difference. Environment variables make
them choose so here, down from what this CPU can do: a CPU with AVX-512 imitates one without it, and
not the other way round. Every environment starts with an empty cache: the data set is simulated and
the model trained anew. Takes about as long as the notebooks times eight, or four with `--quick`,
which takes each arithmetic with one number of threads only.

What the notebooks give to `Checks` is recorded and nothing is raised. Printed:

- Numbers with a tolerance: their range and SD over environments; the largest |got - want| in units
  of the tolerance, marked `tight` above a half and `FAILS` above 1; and the tolerance that the
  spread asks for: four times the range and twice the largest |got - want|, whichever is more, but
  never above half of |want - null|, which `Checks` refuses. Where that limit is what you see,
  the effect is too small for its spread.
- Numbers with bounds: their range and SD, and the smallest distance to a bound, in the number's
  unit and in SDs, marked `near` below 4 SDs and `FAILS` outside.
- Cells whose other text, which strict nbval compares, differs between environments.

The file has both tables and the number of every environment; it grows while the environments run.
"""

import argparse
import functools
import inspect
import itertools
import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pandas as pd
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm.auto import tqdm

from giblet import checks

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
ARITHMETIC = {
    "native": {},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "compatible MKL": {"MKL_CBWR": "COMPATIBLE"},
}
THREADS = (1, 2)
KINDS = ("number", "bounds")  # of `Checks`
UNSET = {"GIBLET_DATA", "GIBLET_RUN", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
TIMEOUT = 1800  # seconds a cell may take
RECORDER = """import sys
sys.path.insert(0, {folder!r})
from spread import record_checks
sys.path.remove({folder!r})
record_checks({file!r})"""


@dataclass(frozen=True)
class Run:
    """A notebook, run in an environment.

    Attributes
    ----------
    records : list of dict
        As from `read_records`.
    texts : {cell and kind of output: text}
        As from `compared_texts`.
    failure : str
        Why the notebook did not run to its end, empty if it did.
    """

    notebook: str
    environment: str
    records: list[dict] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    failure: str = ""


def environments(quick: bool = False) -> dict[str, dict[str, str]]:
    """The variables of each environment, by its name."""
    pairs = itertools.product(ARITHMETIC, THREADS)
    if quick:
        pairs = zip(ARITHMETIC, itertools.cycle(THREADS), strict=False)
    found = {}
    for name, threads in pairs:
        found[f"{name} x{threads}"] = ARITHMETIC[name] | {"OMP_NUM_THREADS": str(threads)}
    return found


def record_checks(path: str | Path) -> None:
    """In a kernel: append every number that is checked to a file, a JSON line each; never raise."""
    for kind in KINDS:
        setattr(checks.Checks, kind, _recording(getattr(checks.Checks, kind), Path(path)))


def _recording(function: Callable, path: Path) -> Callable:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def record(*args, **kwargs):
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        arguments = dict(given.arguments)
        if not arguments.pop("self").enforced:
            function(*args, **kwargs)
            return
        entry = {"kind": function.__name__, "name": arguments.pop("name").strip()}
        entry |= {name: float(value) for name, value in arguments.items()}
        with path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    return record


def read_records(path: Path) -> list[dict]:
    """What `record_checks` wrote, in order; a name that comes again is numbered."""
    seen = Counter()
    records = []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        name = record["name"]
        seen[name] += 1
        if seen[name] > 1:
            record["name"] = f"{name} ({seen[name]})"
        records.append(record)
    return records


def compared_texts(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What strict nbval compares, pictures apart: {"[3] stdout": text}, by the cell's number."""
    texts = {}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, start=1):
        if {"nbval-ignore-output", "nbval-skip"} & set(cell.metadata.get("tags", [])):
            continue
        for output in cell.outputs:
            found = {output.name: output.text} if output.output_type == "stream" else {}
            for kind, text in (found | output.get("data", {})).items():
                if kind in ("stdout", "stderr", "text/plain", "text/html"):
                    label = f"[{number}] {kind}"
                    texts[label] = texts.get(label, "") + text
    return texts


def run_notebook(path: Path, name: str, variables: dict[str, str], cache: Path) -> Run:
    """Run a notebook in a kernel of its own, whose data and models are kept in `cache`."""
    controlled = UNSET.union(*ARITHMETIC.values())
    environment = {key: value for key, value in os.environ.items() if key not in controlled}
    environment |= variables | {"XDG_CACHE_HOME": str(cache)}
    file = cache / f"{path.stem}.jsonl"
    file.touch()
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    recorder = RECORDER.format(folder=str(Path(__file__).parent), file=str(file))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(recorder))
    resources = {"metadata": {"path": str(path.parent)}}
    failure = ""
    try:
        client = NotebookClient(notebook, timeout=TIMEOUT, resources=resources)
        client.extra_arguments = ["--log-level=ERROR"]
        client.execute(env=environment)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        failure = str(error).strip().splitlines()[-1]
    del notebook.cells[0]
    return Run(path.stem, name, read_records(file), compared_texts(notebook), failure)


def collect_runs(paths: Sequence[Path], quick: bool) -> Iterator[Run]:
    """Every notebook in every environment, environment by environment."""
    kinds = environments(quick)
    with tqdm(total=len(kinds) * len(paths), unit="notebook") as progress:
        for name, variables in kinds.items():
            with tempfile.TemporaryDirectory(prefix="giblet-spread-") as cache:
                for path in paths:
                    progress.set_description(f"{name}: {path.stem}")
                    yield run_notebook(path, name, variables, Path(cache))
                    progress.update()


def value_table(runs: Sequence[Run], kind: str) -> pd.DataFrame:
    """One row a number given to `kind` ('number' or 'bounds') in one environment."""
    rows = [
        {"notebook": run.notebook, "environment": run.environment} | record
        for run in runs
        for record in run.records
        if record["kind"] == kind
    ]
    return pd.DataFrame(rows)


def round_up(value: float) -> float:
    """To two significant digits."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(round(value / unit, 6)) * unit:.12g}")


def suggest_tolerance(got: pd.Series, want: float, null: float) -> float:
    """Four times the range or twice the largest |got - want|, at most half of |want - null|."""
    asked = max(4 * (got.max() - got.min()), 2 * (got - want).abs().max())
    if not (got.notna().all() and math.isfinite(asked)):
        return math.nan
    return min(round_up(asked), abs(want - null) / 2)


def summarise_tolerances(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a number that has a tolerance; `deviation` is the largest |got - want| / atol."""
    rows = []
    for (notebook, name), table in _by_number(runs, "number"):
        got = table["got"]
        first = table.iloc[0]
        distance = (got - table["want"]).abs()
        deviation = (distance / table["atol"]).where(distance != 0, 0.0).fillna(math.inf).max()
        row = {"notebook": notebook, "name": name, **_spread(got)}
        row |= {"want": first["want"], "atol": first["atol"], "deviation": deviation}
        row["suggested"] = suggest_tolerance(got, first["want"], first["null"])
        row["mark"] = "FAILS" if deviation > 1 else "tight" if deviation > 0.5 else ""
        rows.append(row)
    return pd.DataFrame(rows)


def summarise_bounds(runs: Sequence[Run]) -> pd.DataFrame:
    """A row a number that has bounds; `margin` is the smallest distance to one, below 0 outside."""
    rows = []
    for (notebook, name), table in _by_number(runs, "bounds"):
        got = table["got"]
        first = table.iloc[0]
        inside = pd.concat([got - table["above"], table["below"] - got], axis=1).min(axis=1)
        margin = inside.fillna(-math.inf).min()
        row = {"notebook": notebook, "name": name, **_spread(got)}
        row |= {"above": first["above"], "below": first["below"], "margin": margin}
        row["margin in SDs"] = margin / row["sd"] if row["sd"] else math.copysign(math.inf, margin)
        near = row["margin in SDs"] < 4
        row["mark"] = "FAILS" if margin <= 0 else "near" if near else ""
        rows.append(row)
    return pd.DataFrame(rows)


def _by_number(runs: Sequence[Run], kind: str):
    table = value_table(runs, kind)
    return [] if table.empty else table.groupby(["notebook", "name"], sort=False)


def _spread(got: pd.Series) -> dict[str, float]:
    finite = got[got.abs() < math.inf]
    lowest = got.min(skipna=False)
    highest = got.max(skipna=False)
    return {"n": len(got), "min": lowest, "max": highest, "sd": finite.std()}


def differing_texts(runs: Sequence[Run], around: int = 60) -> list[str]:
    """Cells whose compared text differs between environments, with what differs first in each."""
    lines = []
    for notebook in dict.fromkeys(run.notebook for run in runs):
        of_notebook = [run for run in runs if run.notebook == notebook]
        for label in dict.fromkeys(label for run in of_notebook for label in run.texts):
            versions = {}
            for run in of_notebook:
                if label in run.texts or not run.failure:  # what came after a failure did not run
                    versions.setdefault(run.texts.get(label, ""), []).append(run.environment)
            if len(versions) > 1:
                lines.append(f"{notebook} {label}: {len(versions)} versions")
                lines += _excerpts(versions, around)
    return lines


def _excerpts(versions: dict[str, list[str]], around: int) -> list[str]:
    """The first version where another leaves it, and each other where it leaves the first."""
    texts = list(versions)
    starts = [shared_length([texts[0], text]) for text in texts[1:]]
    return [
        f"    {', '.join(versions[text])}: {text[max(0, start - around) : start + around]!r}"
        for text, start in zip(texts, [min(starts), *starts], strict=True)
    ]


def shared_length(texts: Sequence[str]) -> int:
    """Number of characters with which all texts begin."""
    columns = zip(*texts, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


def write_table(runs: Sequence[Run], path: Path) -> None:
    """Both tables, with a column an environment that holds its number."""
    tables = []
    for kind, summarise in zip(KINDS, (summarise_tolerances, summarise_bounds), strict=True):
        values = value_table(runs, kind)
        if not values.empty:
            wide = values.pivot(index=["notebook", "name"], columns="environment", values="got")
            tables.append(summarise(runs).merge(wide, on=["notebook", "name"]))
    if tables:
        pd.concat(tables).to_csv(path, index=False)


def print_report(runs: Sequence[Run]) -> None:
    """Tables, texts that differ, and runs that broke off."""
    for title, table in (
        ("Numbers with a tolerance", summarise_tolerances(runs)),
        ("Numbers with bounds", summarise_bounds(runs)),
    ):
        marked = 0 if table.empty else int((table["mark"] != "").sum())
        print(f"\n{title}: {len(table)}, {marked} of them marked")
        if not table.empty:
            print(table.to_string(index=False, float_format="{:.4g}".format))
    differing = differing_texts(runs)
    print("\nOther text that differs between environments:", *differing or ["none"], sep="\n")
    for run in runs:
        if run.failure:
            print(f"\n{run.notebook} broke off in {run.environment}: {run.failure}")


def choose_notebooks(beginnings: Sequence[str]) -> list[Path]:
    """The notebooks whose names begin so, or all."""
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    missing = [text for text in beginnings if not any(path.name.startswith(text) for path in paths)]
    if missing:
        raise SystemExit(f"no notebook begins with {', '.join(missing)}.")
    return [path for path in paths if path.name.startswith(tuple(beginnings) or "")]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--notebooks", nargs="+", default=[], metavar="04")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    runs = []
    for run in collect_runs(choose_notebooks(arguments.notebooks), arguments.quick):
        runs.append(run)
        if arguments.output:
            write_table(runs, arguments.output)
    print_report(runs)


if __name__ == "__main__":
    main()
