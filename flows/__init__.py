"""When things run: the DAG, the planner, Prefect, the command line."""
