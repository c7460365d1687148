"""What lies between a socket and the routes: the server, access, caps and deadlines."""
