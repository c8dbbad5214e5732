"""Which kind of network the node is in: datacenter, internet or hybrid; measured, never assumed."""
