output "load_balancer" {
  description = "Point the host of public_url here (CNAME or alias)."
  value       = aws_lb.registry.dns_name
}

output "bucket" {
  description = "Bucket of the blobs."
  value       = aws_s3_bucket.blobs.bucket
}

output "database_endpoint" {
  description = "Host and port of PostgreSQL, within the network."
  value       = aws_db_instance.database.endpoint
}

output "runner_token_secret" {
  description = "Put a token with the scope runner here, once."
  value       = aws_secretsmanager_secret.runner_token.name
}

output "migrate_command" {
  description = "Brings the database to the schema of server_image: before each deployment."
  value = join(" ", [
    "aws ecs run-task --cluster ${aws_ecs_cluster.registry.name} --launch-type FARGATE",
    "--task-definition ${aws_ecs_task_definition.registry["migrate"].family}",
    "--network-configuration 'awsvpcConfiguration={subnets=[${join(",", var.private_subnet_ids)}],securityGroups=[${aws_security_group.registry.id}]}'",
  ])
}

output "runner_command" {
  description = "Starts a runner; it ends when it finds no work for five minutes."
  value       = "aws batch submit-job --job-name runner --job-queue ${aws_batch_job_queue.runners.name} --job-definition ${aws_batch_job_definition.runner.name}"
}
