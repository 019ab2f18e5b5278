"""Who shares a cached answer: nobody but those of one project, or of a group that staff named."""

from dataclasses import replace

from completions.accounts import KeyFacts, ProjectFacts
from completions.cache.policy import scope_of
from completions.limits import Limits
from providers.types import CacheMode

KEY = KeyFacts(
    5, 1.0, 1, "p", "", None, "", None, None, None, frozenset(), Limits(), True, CacheMode.DEFAULT
)  # fmt: skip


def scope(
    project: int = 1, shared_by: str = "project", group: str = "", *who: int | None, since: float = 1.0
) -> str:
    facts = ProjectFacts(project, since, "p", True, 30, shared_by, group, ())
    key_id, user_id = who or (5, None)
    key = None if key_id is None else replace(KEY, id=key_id)
    return scope_of(facts, key, user_id)


def test_scopes_are_apart_unless_staff_joined_them() -> None:
    mine = scope()

    assert mine == scope(1, "project", "", 6, None) == scope(1, "project", "", None, 9)  # any key, any member
    apart = {
        mine,
        scope(2),
        scope(1, "key"),
        scope(1, "key", "", 6, None),
        scope(1, "key", "", None, 5),
        scope(2, "key"),
        scope(1, "project", "shop"),
        scope(1, "project", "other"),
        scope(1, "project", "1"),
        scope(1, "project", "project 2"),
    }
    assert len(apart) == 10
    assert scope(1, "project", "shop") == scope(2, "project", "shop")  # one group
    assert scope(1, "key", "shop") == scope(1, "key")  # each for itself, whatever the group


def test_ids_that_come_again_after_a_restore_are_apart() -> None:
    assert scope(since=1.0) != scope(since=2.0)
    again = replace(KEY, since=2.0)
    facts = ProjectFacts(1, 1.0, "p", True, 30, "key", "", ())
    assert scope_of(facts, KEY, None) != scope_of(facts, again, None)


def test_what_is_merely_alike_is_apart_within_a_group_too() -> None:
    one, other = (ProjectFacts(number, 1.0, "p", True, 30, "project", "shop", ()) for number in (1, 2))
    assert scope_of(one, KEY, None) == scope_of(other, KEY, None)
    assert scope_of(one, KEY, None, grouped=False) != scope_of(other, KEY, None, grouped=False)
