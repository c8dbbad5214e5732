"""The peer protocol without I/O: frames, messages, session states, link measurement.

Nothing here knows of sockets, TLS, tasks or clocks: bytes and times come in, bytes and events go
out. ``docs/reference/peer-protocol.md`` is the specification; its state diagrams are generated
from the tables in :mod:`novacron.protocol.states`.
"""
