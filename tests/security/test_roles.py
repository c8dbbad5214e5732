"""The ladder of roles."""

from __future__ import annotations

import pytest

from novacron.security.roles import Role

LADDER = [Role.VIEWER, Role.OPERATOR, Role.ADMIN]


@pytest.mark.parametrize("have", list(Role))
@pytest.mark.parametrize("need", list(Role))
def test_who_may_what(have: Role, need: Role) -> None:
    if {Role.NODE, Role.JOIN} & {have, need}:
        allowed = have is need
    else:
        allowed = LADDER.index(have) >= LADDER.index(need)
    assert have.allows(need) is allowed
