"""Between the socket and the routes: authentication, size limits, deadlines."""
