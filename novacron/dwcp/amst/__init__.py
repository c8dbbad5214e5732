"""AMST, the adaptive multi-stream transport: objects and byte streams over many connections.

``docs/reference/amst-protocol.md`` is the specification of what crosses the wire.
"""
