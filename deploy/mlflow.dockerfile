# An MLflow server with drivers for PostgreSQL and S3.
FROM python:3.11-slim
RUN pip install --no-cache-dir "mlflow>=3.5,<4" "psycopg2-binary>=2.9" "boto3>=1.26"
EXPOSE 5000
