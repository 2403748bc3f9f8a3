# An MLflow server with accounts, and drivers for PostgreSQL and S3. Pin the image to what you have tried:
#   docker pull python:3.11.13-slim-bookworm && docker inspect --format '{{index .RepoDigests 0}}' python:3.11.13-slim-bookworm
FROM python:3.11.13-slim-bookworm
RUN pip install --no-cache-dir "mlflow[auth]==3.17.2" "psycopg2-binary>=2.9" "boto3>=1.26"
COPY mlflow_auth.ini /etc/mlflow/auth.ini
RUN useradd --uid 10001 --no-create-home mlflow && mkdir /artifacts /accounts && chown mlflow /artifacts /accounts
USER 10001
EXPOSE 5000
