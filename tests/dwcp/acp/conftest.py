from tests.network.conftest import authority, certificates, make_node

__all__ = ["authority", "certificates", "make_node"]
