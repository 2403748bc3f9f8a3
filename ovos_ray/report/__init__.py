"""The report of a study: read from MLflow, compared, drawn, and put on one page."""
