-- Beside "mlflow", which PostgreSQL's image makes: MLflow's users, and the studies of Optuna.
CREATE DATABASE mlflow_users;
CREATE DATABASE studies;
