"""A network to measure and to test on: namespaces, capped links, and wide-area paths in user space.

It stands below the benches because tests may import a bench and a bench imports no test. Everything
in here needs root on Linux; `netns.obstacle` says what is missing.
"""
