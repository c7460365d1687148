"""Routes for people: pages and images."""
