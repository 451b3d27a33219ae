"""Redis, one server or a cluster: the connection, keys, scripts, and what is made of them."""
