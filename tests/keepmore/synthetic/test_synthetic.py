"""The sample set must be the same for everyone, labelled as asked and photograph-like in size."""

from pathlib import Path

import pytest

from keepmore.errors import InvalidRequest
from keepmore.synthetic.dataset import SPLITS, write_sample
from keepmore.synthetic.shapes import CLASSES

pytestmark = pytest.mark.slow

TRAIN, TEST = 2, 1


def contents(root: Path) -> dict[str, bytes]:
    """Every file under a folder, by its place there."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small set, written once for the tests that only read."""
    folder = tmp_path_factory.mktemp("sample") / "set"
    write_sample(folder, train_per_class=TRAIN, test_per_class=TEST)
    return folder


def test_same_seed_writes_the_same_bytes(root: Path, tmp_path: Path) -> None:
    """Else two people running the demonstration see different numbers."""
    write_sample(tmp_path, train_per_class=TRAIN, test_per_class=TEST)
    assert contents(tmp_path) == contents(root)


def test_other_processes_and_a_larger_set_change_no_picture(root: Path, tmp_path: Path) -> None:
    """Else a picture depends on the machine's cores or on the set's size."""
    write_sample(tmp_path, train_per_class=TRAIN + 1, test_per_class=TEST, processes=2)
    larger = contents(tmp_path)
    assert {place: larger[place] for place in contents(root)} == contents(root)


def test_another_seed_writes_other_pictures(root: Path, tmp_path: Path) -> None:
    """Else repeating the demonstration on a fresh set would repeat the same pictures."""
    write_sample(tmp_path, train_per_class=1, test_per_class=0, seed=1)
    assert not set(contents(tmp_path).values()) & set(contents(root).values())


def test_the_tree_holds_the_classes_and_counts_asked_for(root: Path) -> None:
    """Else labels would be wrong or classes unbalanced, and accuracies meaningless."""
    places = [
        f"{split}/{name}/{number:04}.jpg"
        for split, count in zip(SPLITS, (TRAIN, TEST), strict=True)
        for name in CLASSES
        for number in range(count)
    ]
    assert len(CLASSES) == 8
    assert sorted(contents(root)) == sorted(places)


def test_no_picture_is_in_the_set_twice(root: Path) -> None:
    """Else a test picture seen in training would flatter every accuracy."""
    pictures = list(contents(root).values())
    assert len(set(pictures)) == len(pictures)


def test_progress_is_reported_after_every_picture(tmp_path: Path) -> None:
    """Else the demonstration would sit silent while it draws."""
    reports: list[tuple[int, int]] = []
    write_sample(
        tmp_path,
        train_per_class=1,
        test_per_class=0,
        on_image=lambda done, total: reports.append((done, total)),
    )
    assert reports == [(done, 8) for done in range(1, 9)]


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    """Else a mistyped folder would have pictures mixed into the user's own files."""
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InvalidRequest, match="not empty; name a new folder") as error:
        write_sample(tmp_path, train_per_class=1, test_per_class=1)
    assert str(tmp_path) in str(error.value)
    assert list(contents(tmp_path)) == ["mine.txt"]


def test_a_drawing_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    """Else the next demonstration would run on half a set and show other numbers."""

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "set", train_per_class=1, test_per_class=1, on_image=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_files_are_as_large_as_photographs(root: Path) -> None:
    """Else the savings shown would be those of drawings, not of photographs."""
    sizes = [len(data) for data in contents(root).values()]
    assert 18_000 < sum(sizes) / len(sizes) < 60_000
    assert min(sizes) > 8_000
