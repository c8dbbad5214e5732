"""What is said where a node is not, or no longer, trusted."""

from __future__ import annotations

from novacron.security.errors import PeerRejectedError, ReplacedAuthorityError


def revoked(node_id: str, serial: str) -> PeerRejectedError:
    return PeerRejectedError(
        f"node {node_id} is not served any more",
        why=f"its certificate {serial} was revoked",
        remedy="see the runbook certificate-revoked",
    )


def of_a_former_authority(node_id: str, serial: str) -> PeerRejectedError:
    return PeerRejectedError(
        f"node {node_id} is not served any more",
        why=f"its certificate {serial} is of an authority that this cluster has replaced",
        remedy="where it has a newer one it comes back by itself; else it has to join again, see the "
        "runbook authority-key",
    )


def replaced(node_id: str, where: str) -> ReplacedAuthorityError:
    """For the node that was away: its peer has shown the handover from the authority that this node
    trusts to another, and does not take this node's certificate."""
    from novacron.security.joined_material import JOIN_AGAIN  # a boot needs none of it

    return ReplacedAuthorityError(
        f"no session with {where}",
        why="the cluster's authority was replaced while this node was away, and certificates of the one "
        "it has joined are not valid there any more",
        remedy=JOIN_AGAIN.format(node_id=node_id),
    )
