"""The folder of exports: numbers never come back, the pointer is never wrong, nothing is half made or half gone."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.core.errors import ExportError
from learnd.export import versions
from learnd.export.versions import LATEST, MOST_YOUNG, YOUNG_S, Versions
from tests.unit.test_checkpoint_faults import Killed, killed_at

POINTS = (
    "export.before-rename",
    "export.after-rename",
    "export.before-pointer",
    "export.after-pointer",
    "export.half-pruned",
)


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self, at_s: float = 0.0) -> None:
        self.at_s = at_s

    def __call__(self) -> float:
        return self.at_s


def _versions(folder: Path, *, keep: int = 2, clock: Clock | None = None, now: Clock | None = None) -> Versions:
    opened = Versions(folder, keep=keep, clock=clock or Clock(), now=now or Clock())
    opened.open()
    return opened


def _publish(opened: Versions, **options: Any) -> int:
    number = opened.take_number(**options)
    building = opened.building(number)
    (building / "saved_model").mkdir(parents=True)
    (building / "saved_model" / "a").write_text(str(number))
    opened.publish(number)
    return number


def test_a_restored_backup_takes_no_number_again(tmp_path: Path) -> None:
    """The folder as it was two exports ago knows nothing of them; the time of day does."""
    now = Clock(1_800_000_000.0)
    opened = _versions(tmp_path / "exports", now=now)
    assert _publish(opened) == 1_800_000_000
    shutil.copytree(tmp_path / "exports", tmp_path / "backup", symlinks=True)
    published = []
    for _ in range(2):
        now.at_s += 300.0
        published.append(_publish(opened))
    shutil.rmtree(tmp_path / "exports")
    (tmp_path / "backup").rename(tmp_path / "exports")
    now.at_s += 300.0
    assert _publish(_versions(tmp_path / "exports", now=now)) > max(published)


@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["publish", "crash", "lose", "spoil", "above"]), st.integers(-500, 500))))
def test_numbers_only_ascend(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """Whatever the clock does, and whether versions, or the record of the last number, are lost in between."""
    folder = tmp_path / "exports"
    shutil.rmtree(folder, ignore_errors=True)
    now = Clock(1000.0)
    used = [0]
    for step, moved_s in steps:
        now.at_s = max(0.0, now.at_s + moved_s)
        opened = _versions(folder, now=now)
        if step == "crash":
            used.append(opened.take_number())
        elif step == "above":
            used.append(_publish(opened, above=used[-1] + 7))
            assert used[-1] > used[-2] + 7
        else:
            used.append(_publish(opened))
        if step == "lose":  # the record still knows
            shutil.rmtree(opened.path(used[-1]))
        if step == "spoil":  # the versions still do
            (folder / ".last-number").write_text("")
    assert used == sorted(set(used))


def test_latest_names_the_newest_and_is_a_relative_link(tmp_path: Path) -> None:
    """The folder can be mounted, or copied, elsewhere."""
    opened = _versions(tmp_path / "exports")
    for _ in range(2):
        number = _publish(opened)
        assert (tmp_path / "exports" / LATEST).readlink() == Path(str(number))
    (tmp_path / "exports").rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / LATEST / "saved_model" / "a").read_text() == str(number)


@pytest.mark.parametrize("point", POINTS)
def test_whatever_a_crash_leaves_the_next_start_mends(point: str, tmp_path: Path) -> None:
    """`latest` names the newest version, every version is whole, and nothing else is left but the record."""
    clock = Clock()
    opened = _versions(tmp_path, keep=1, clock=clock)
    first = _publish(opened)
    with killed_at(point), pytest.raises(Killed):
        _publish(opened)
        clock.at_s += YOUNG_S
        opened.prune()
    listed = opened.numbers()
    assert listed == {
        "export.before-rename": [first],
        "export.half-pruned": [first + 1],
    }.get(point, [first, first + 1])
    assert opened.latest() in listed, "also before the next start"
    again = _versions(tmp_path)
    assert again.numbers() == listed
    assert again.latest() == listed[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".last-number", LATEST, *map(str, listed)])
    for number in listed:
        assert (again.path(number) / "saved_model" / "a").read_text() == str(number)


def test_every_crash_point_of_publishing_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new point in the code has to come into `POINTS`."""
    reached: list[str] = []
    monkeypatch.setattr("learnd.core.crash_points.reached", reached.append)
    clock = Clock()
    opened = _versions(tmp_path, keep=1, clock=clock)
    for _ in range(2):
        _publish(opened)
        clock.at_s += YOUNG_S
        opened.prune()
    assert set(reached) == set(POINTS)


def test_what_is_renamed_was_synced_and_names_are_synced_before_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power at any moment leaves on the disk what a crash would: no version without its files."""
    done: list[str] = []

    def note(verb: str, real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            done.append(" ".join([verb, *(Path(a).name for a in arguments if isinstance(a, str | Path))]))
            return real(*arguments, **options)

        return call

    clock = Clock()
    opened = _versions(tmp_path / "exports", keep=1, clock=clock)
    _publish(opened)
    monkeypatch.setattr(versions, "fsync", note("sync", versions.fsync))
    monkeypatch.setattr(Path, "rename", note("rename", Path.rename))
    monkeypatch.setattr(Path, "replace", note("rename", Path.replace))
    monkeypatch.setattr(shutil, "rmtree", note("remove", shutil.rmtree))
    _publish(opened)
    clock.at_s += YOUNG_S
    opened.prune()
    assert done == [
        "rename .last-number.new .last-number",
        "sync .building-2",
        "sync saved_model",
        "rename .building-2 2",
        "sync exports",
        "rename .latest.new latest",
        "sync exports",
        "rename 1 .building-pruned-1",
        "sync exports",
        "remove .building-pruned-1",
    ]


def test_a_version_younger_than_a_minute_is_never_pruned(tmp_path: Path) -> None:
    """However many there are; a moment later all but the newest two go."""
    clock = Clock()
    opened = _versions(tmp_path, keep=2, clock=clock)
    for _ in range(5):
        _publish(opened)
    clock.at_s = YOUNG_S - 0.001
    opened.prune()
    assert opened.numbers() == [1, 2, 3, 4, 5]
    clock.at_s = YOUNG_S
    opened.prune()
    assert opened.numbers() == [4, 5]


def test_what_latest_named_stays_for_a_minute_after_it_moved_on(tmp_path: Path) -> None:
    """Whoever resolved it a moment before opens its files now, however long ago it was published."""
    clock = Clock()
    opened = _versions(tmp_path, keep=1, clock=clock)
    _publish(opened)
    clock.at_s = 300.0
    found = (tmp_path / LATEST).resolve()
    _publish(opened)
    for clock.at_s, there in ((300.0, True), (300.0 + YOUNG_S - 0.5, True), (300.0 + YOUNG_S, False)):
        opened.prune()
        assert found.exists() == there


@pytest.mark.parametrize("set_by_s", [-1e6, 0.0, 1e6])
def test_a_version_from_before_this_process_stays_for_a_minute(tmp_path: Path, set_by_s: float) -> None:
    """Nobody knows when it was found last; the system's time says nothing, for it may have been set in between."""
    opened = _versions(tmp_path, keep=1)
    for _ in range(2):
        _publish(opened)
    clock = Clock(100.0)
    again = _versions(tmp_path, keep=1, clock=clock, now=Clock(time.time() + set_by_s))
    clock.at_s += YOUNG_S - 0.5
    again.prune()
    assert again.numbers() == [1, 2]
    clock.at_s += 1.0
    again.prune()
    assert again.numbers() == [2]


def test_a_process_that_ends_again_and_again_does_not_fill_the_disk(tmp_path: Path) -> None:
    """None of its lives lasts for a minute, after which it would know that nobody looks at the older ones."""
    for _ in range(MOST_YOUNG + 20):
        opened = _versions(tmp_path, keep=3)
        _publish(opened)
        opened.prune()
    assert len(opened.numbers()) == MOST_YOUNG + 3


def test_the_champion_is_never_pruned(tmp_path: Path) -> None:
    """Nor what somebody still reads, say an upload; here an operator had gone back to an older version."""
    clock = Clock()
    opened = _versions(tmp_path, keep=1, clock=clock)
    for _ in range(4):
        _publish(opened)
    (tmp_path / LATEST).unlink()
    (tmp_path / LATEST).symlink_to("2")
    clock.at_s += 10 * YOUNG_S
    opened.prune(needed=[3])
    assert opened.numbers() == [2, 3, 4]


def test_names_that_are_no_numbers_are_let_be(tmp_path: Path) -> None:
    """Neither listed nor pruned nor swept; digits that Python alone takes for some do not end the daemon."""
    for name in ("notes", "007", "²", "0", "-3", "1.5"):
        (tmp_path / name).mkdir()
    opened = _versions(tmp_path)
    assert opened.numbers() == []
    assert _publish(opened) == 1
    assert len(list(tmp_path.iterdir())) == 9


def test_a_pointer_that_cannot_be_written_is_told_and_the_version_stays(tmp_path: Path) -> None:
    """Somebody made a folder of that name: the error says so, a start does not fail over it."""
    opened = _versions(tmp_path)
    (tmp_path / LATEST / "mine").mkdir(parents=True)
    with pytest.raises(ExportError, match="nothing else may have that name"):
        _publish(opened)
    assert _versions(tmp_path).numbers() == [1]


def test_a_pointer_to_nothing_is_taken_away(tmp_path: Path) -> None:
    """All versions were removed by hand: better no pointer than one that does not load."""
    opened = _versions(tmp_path)
    shutil.rmtree(opened.path(_publish(opened)))
    assert _versions(tmp_path).latest() is None
    assert not (tmp_path / LATEST).is_symlink()
