"""What the routes do: models, pools, jobs, selections."""
