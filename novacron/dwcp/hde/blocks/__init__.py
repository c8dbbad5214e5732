"""Content-addressed blocks: what a receiver holds already need not cross a link.

A file is cut where its content says so, and each block is known by its SHA-256. A receiver keeps an
index of the blocks in files it received, one for each tenant; a sender tells the blocks of a file it
is about to send, and sends what is left over.
"""
