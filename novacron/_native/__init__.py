"""Typed wrappers around the C extension; the only importer of the compiled module.

Importing this package does not load the compiled module: a node without it must still boot and say
what is missing. Each call of :func:`novacron._native.ffi.library` may raise
:class:`~novacron._native.ffi.NativeUnavailableError`.
"""
