"""Between the socket and the routes: access, size limits, deadlines."""
