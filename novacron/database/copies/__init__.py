"""What is in a database, carried elsewhere: to a backup file, back, or to the other engine.

Nothing here is imported by a running node. Everything blocks.
"""
