"""docs/results.md and its plots, from what `benchmarks.accuracy` measured."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks import accuracy_plots
from benchmarks.accuracy_results import EFFORTS, FRACTIONS, SEEDS, SPREAD, Measured, Variants, fixed, paired
from keepmore.codec import version as codec_version
from keepmore.training import statistics
from keepmore.training.results import Difference

DOCS = Path("docs")
WIDTH = 120
PLAIN, ORIGINAL, LARGEST = "8", "0", "10"
WITHIN_POINTS, WITHIN_OF_BEST = 2.0, 1.0
HOUR_S = 3600
CANNOT_TELL = "cannot tell"


def write(results: dict[str, Any]) -> None:
    """Write the page, and print it."""
    accuracy_plots.draw(results, DOCS)
    page = "\n".join(map(_wrapped, _page(results))) + "\n"
    (DOCS / "results.md").write_text(page)
    print(page)


def _wrapped(line: str) -> str:
    """Prose in lines of 120 characters, tables as they are."""
    return (
        line if line.startswith(("    ", "!")) else "\n".join(textwrap.wrap(line, WIDTH, subsequent_indent=_hang(line)))
    )


def _hang(line: str) -> str:
    return "  " if line.startswith("* ") else ""


def _page(results: dict[str, Any]) -> Iterator[str]:
    pool = results["pool"]
    yield "# Results"
    yield ""
    yield (
        f"Written by `python -m benchmarks.accuracy DATASET STORE MINUTES`. {pool.pool:,} photographs of clothes "
        f"in {len(pool.classes)} classes (JPEG) to keep from, {pool.evaluation:,} originals to test on; codec "
        f"{codec_version.codec()}; a linear probe on MobileNetV2 (ImageNet weights), 300 steps. Numbers are top-1 in "
        f"percent, means of {SEEDS} draws of the images, with 95 % intervals over draws and test images."
    )
    yield from _equal_storage(results)
    yield from _ways(results)
    yield from _predicted(results)
    yield from _efforts(results)
    if results["tuned"]:
        yield from _tuned(results["tuned"])
    yield from _claims(results)


def _equal_storage(results: dict[str, Any]) -> Iterator[str]:
    yield from _title("Accuracy at equal storage")
    yield "![Measured accuracy against stored bytes, a line for each distance](results-storage.svg)"
    yield ""
    yield "Budgets are fractions of what the pool takes at distance 10. The last number is the images kept."
    yield ""
    yield from _table(
        ["distance", *(f"{100 * float(name):g} %: {results['budgets'][name]:,} bytes" for name in FRACTIONS)],
        (
            [
                variant,
                *(
                    f"{_share(results['random'][name][variant])} ({results['random'][name][variant].images:,.0f})"
                    for name in FRACTIONS
                ),
            ]
            for variant in results["random"]["1"]
        ),
    )
    yield ""
    yield "Difference to the original files, in points:"
    yield ""
    yield from _table(
        ["distance", *(f"{100 * float(name):g} %" for name in FRACTIONS)],
        (
            [variant, *(_ahead(paired(results["random"][name], variant, ORIGINAL)) for name in FRACTIONS)]
            for variant in results["random"]["1"]
            if variant != ORIGINAL
        ),
    )


def _ways(results: dict[str, Any]) -> Iterator[str]:
    """Which images, and which variant."""
    yield from _title("Which images, and which variant")
    yield (
        "`smallest` keeps the smallest files first (the same images each time, five seeds of the probe); `spread` "
        "gives each image its own distance; `advised` is the distance recommended by advice, fitted on "
        f"{results['advice']['pilot_images']:,} of the images."
    )
    yield ""
    rows = []
    for place, name in enumerate(FRACTIONS):
        variants, small = results["random"][name], results["smallest"][name]
        advised = results["advice"]["budgets"][place]["recommended"]["distance"]
        best, best_small = _best(variants), _best(small)
        cells = [variants[best], variants[PLAIN], variants[advised], variants[SPREAD.name], small[best_small]]
        suffixes = [f" at {best}", "", f" at {advised}", "", f" at {best_small}"]
        rows.append([f"{100 * float(name):g} %", *(f"{_share(c)}{n}" for c, n in zip(cells, suffixes, strict=True))])
    yield from _table(
        ["budget", "best fixed distance", "plain 8", "advised", "spread 0.5 to 15", "smallest, best"], rows
    )


def _predicted(results: dict[str, Any]) -> Iterator[str]:
    advice, whole = results["advice"], results["random"]["all"]
    yield from _title("What advice predicts, and what is measured")
    law = {name: value["value"] for name, value in advice["fit"]["constants"].items()}
    yield (
        f"Pilots on {advice['pilot_images']:,} images of {results['pool'].pool:,}; the law fits them with R² "
        f"{advice['fit']['r2']:.3f} and is {advice['fit']['left_out_points']:.1f} points off on sizes left out; "
        + ", ".join(f"{name} {value:.3g}" for name, value in law.items())
        + ". The whole pool at every distance:"
    )
    yield ""
    yield "![Predicted and measured accuracy of the whole pool, by distance](results-predicted.svg)"
    yield ""
    curves = {curve["distance"]: curve["points"][-1] for curve in advice["curves"]}
    yield from _table(
        ["distance", "predicted", "measured", "error, points"],
        (
            [
                variant,
                f"{_percent(curves[variant]['accuracy'])} ({_ends(curves[variant]['interval'])})",
                _share(one),
                f"{_off(curves[variant], one):+.1f}",
            ]
            for variant, one in fixed(whole)
        ),
    )
    yield ""
    yield from _table(
        ["budget", "advised", "predicted there", "measured there", "behind the best, points"],
        (_choice(results, place, name) for place, name in enumerate(FRACTIONS)),
    )


def _choice(results: dict[str, Any], place: int, name: str) -> list[str]:
    variants, recommended = results["random"][name], results["advice"]["budgets"][place]["recommended"]
    return [
        f"{100 * float(name):g} %",
        recommended["distance"],
        f"{_percent(recommended['accuracy'])} ({_ends(recommended['interval'])})",
        _share(variants[recommended["distance"]]),
        f"{_behind(variants, recommended['distance']):.1f}",
    ]


def _efforts(results: dict[str, Any]) -> Iterator[str]:
    yield from _title("The value of effort")
    yield (
        "Accuracy at the same budgets in bytes. The last column: points over the original files at the budget of 50 %, "
        "for each hour of CPU time that encoding 10,000 images takes."
    )
    yield ""
    yield from _table(
        [
            "effort",
            "distance",
            "bytes per image",
            "CPU ms per image",
            *(f"{100 * float(n):g} %" for n in FRACTIONS),
            "points per hour",
        ],
        (_effort(results, effort, variant) for variant in (PLAIN, LARGEST, "25") for effort in EFFORTS),
    )


def _effort(results: dict[str, Any], effort: int, variant: str) -> list[str]:
    budgets = results["efforts"][effort]
    spent = results["cpu"][effort][float(variant)] + results["cpu"][effort][0.0]
    gained = 100 * paired(budgets["0.5"], variant, ORIGINAL).difference
    return [
        str(effort),
        variant,
        f"{results['sizes'][effort][float(variant)]:,.0f}",
        f"{1000 * spent:.1f}",
        *(_share(budgets[name][variant]) for name in FRACTIONS),
        f"{gained / (spent * 10_000 / HOUR_S):.1f}",
    ]


def _tuned(tuned: dict[str, Any]) -> Iterator[str]:
    yield from _title("Whether the probe ranks distances as fine-tuning does")
    variants, probe = tuned["finetune"], tuned["probe"]
    yield (
        f"MobileNetV2, all layers, {tuned['steps']} steps of {tuned['batch']} images at {tuned['image_size']} pixels, "
        f"{tuned['seeds']} seeds, on the subsets of the 50 % budget; the probe at 224 pixels, {SEEDS} seeds."
    )
    yield ""
    yield from _table(
        ["distance", "images", "fine-tuned", "probe", "fine-tuned, difference to originals", "probe, difference"],
        (
            [
                variant,
                f"{one.images:,.0f}",
                _share(one),
                _share(probe[variant]),
                *("" if variant == ORIGINAL else _ahead(paired(by, variant, ORIGINAL)) for by in (variants, probe)),
            ]
            for variant, one in variants.items()
        ),
    )
    yield ""
    pairs = list(itertools.combinations(variants, 2))
    tuned_says, probe_says = ({pair: paired(by, *pair).verdict for pair in pairs} for by in (variants, probe))
    clear = [pair for pair in pairs if tuned_says[pair] != CANNOT_TELL]
    missed = [pair for pair in clear if probe_says[pair] == CANNOT_TELL]
    alike = [pair for pair in clear if probe_says[pair] == tuned_says[pair]]
    yield (
        f"Of the {len(clear)} pairs of distances that differ significantly with fine-tuning, the probe agrees on "
        f"{len(alike)}: **{_holds(len(clear) == len(alike))}**. It contradicts {len(clear) - len(alike) - len(missed)}"
        f", and cannot tell {_join(missed)}."
    )
    yield ""
    rank = stats.spearmanr(
        [one.top1 for one in variants.values()], [probe[variant].top1 for variant in variants]
    ).statistic
    yield f"Spearman's rank correlation of the two accuracies: {rank:.2f}, over {len(variants)} distances."


def _join(pairs: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{one} from {other}" for one, other in pairs) or "none"


def _claims(results: dict[str, Any]) -> Iterator[str]:
    yield from _title("What holds and what does not")
    variants = results["random"]
    yield "Published: at distance 10, 5.6 times as many images and more than 10 points. Here:"
    yield ""
    published = [_published(variants[name], f"{100 * float(name):g} %") for name in FRACTIONS]
    if results["tuned"]:
        published.append(_published(results["tuned"]["finetune"], "50 %, fine-tuned"))
    yield from _table(["budget", "images", "5.6 times", "points", "more than 10"], published)
    yield ""
    curves = {curve["distance"]: curve["points"][-1] for curve in results["advice"]["curves"]}
    off = {variant: _off(curves[variant], one) for variant, one in fixed(variants["all"])}
    worst = max(off, key=lambda variant: abs(off[variant]))
    yield (
        f"* Advice from a third of the pool predicts the error on all of it within {WITHIN_POINTS:g} points: "
        f"**{_holds(abs(off[worst]) <= WITHIN_POINTS)}**; at worst {off[worst]:+.1f}, at distance {worst}."
    )
    behind = [
        _behind(variants[name], results["advice"]["budgets"][place]["recommended"]["distance"])
        for place, name in enumerate(FRACTIONS)
    ]
    yield (
        f"* The advised distance is within {WITHIN_OF_BEST:g} point of the best measured: "
        f"**{_holds(max(behind) <= WITHIN_OF_BEST)}**; behind it by {', '.join(f'{one:.1f}' for one in behind)} points."
    )
    spread = [paired(variants[name], SPREAD.name, _best(variants[name])) for name in FRACTIONS]
    won = all(one.verdict == "better" for one in spread)
    yield (
        "* A spread beats the best fixed distance (1.4 to 2.9 points in the paper): "
        f"**{_holds(won)}**; {'; '.join(_ahead(one) for one in spread)} points."
    )
    small = [
        statistics.compare(_best_of(results["smallest"][name]).correct, _best_of(variants[name]).correct)
        for name in FRACTIONS
    ]
    won = all(one.verdict == "better" for one in small)
    yield (
        "* Smallest first is better than a random draw: "
        f"**{_holds(won)}**; {'; '.join(_ahead(one) for one in small)} points."
    )
    plain = [
        paired(variants[name], results["advice"]["budgets"][place]["recommended"]["distance"], PLAIN)
        for place, name in enumerate(FRACTIONS)
    ]
    yield f"* The advised distance compared with distance 8: {'; '.join(_ahead(one) for one in plain)} points."


def _published(variants: Variants, where: str) -> list[str]:
    """The published result, at one budget."""
    factor = variants[LARGEST].images / variants[ORIGINAL].images
    ahead = paired(variants, LARGEST, ORIGINAL)
    return [where, f"{factor:.2f} times", _holds(factor >= 5.6), _ahead(ahead), _holds(ahead.difference > 0.1)]


def _best(variants: Variants) -> str:
    return max(dict(fixed(variants)), key=lambda variant: variants[variant].top1)


def _best_of(variants: Variants) -> Measured:
    return variants[_best(variants)]


def _behind(variants: Variants, variant: str) -> float:
    """Points by which the best fixed distance is ahead of `variant`."""
    return 100 * (_best_of(variants).top1 - variants[variant].top1)


def _off(prediction: dict[str, Any], one: Measured) -> float:
    return 100 * (float(prediction["accuracy"]) - one.top1)


def _share(one: Measured) -> str:
    return f"{_percent(one.top1)} ({_ends(one.summary.interval)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _ends(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}"


def _ahead(one: Difference) -> str:
    return f"{100 * one.difference:+.1f} ({100 * one.interval[0]:+.1f} to {100 * one.interval[1]:+.1f})"


def _holds(holds: bool) -> str:
    return "holds" if holds else "fails"


def _title(text: str) -> Iterator[str]:
    yield from ("", f"## {text}", "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Aligned columns, indented, which Markdown leaves as they are."""
    table = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
