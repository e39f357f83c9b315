# What is planned for a new deployment. tests/infra/terraform.test.ts runs it without AWS.
variables {
  bucket_name        = "portllm-blobs-example"
  vpc_id             = "vpc-1"
  private_subnet_ids = ["subnet-1", "subnet-2"]
  public_subnet_ids  = ["subnet-3", "subnet-4"]
  public_url         = "https://models.example"
  certificate_arn    = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
  server_image       = "registry.example:5000/portllm/server:0.1.0"
  runner_image       = "registry.example:5000/portllm/runner:0.1.0-gpu"
}

run "defaults" {
  command = plan

  assert {
    condition     = aws_batch_compute_environment.runners.compute_resources[0].min_vcpus == 0 && aws_batch_compute_environment.runners.compute_resources[0].type == "SPOT"
    error_message = "Without work no machine for runners may run."
  }
  assert {
    condition     = aws_db_instance.database.publicly_accessible == false && aws_db_instance.database.storage_encrypted && aws_db_instance.database.deletion_protection && aws_db_instance.database.skip_final_snapshot == false
    error_message = "The database must be private, encrypted, protected, and leave a snapshot."
  }
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.blobs.block_public_acls, aws_s3_bucket_public_access_block.blobs.block_public_policy,
      aws_s3_bucket_public_access_block.blobs.ignore_public_acls, aws_s3_bucket_public_access_block.blobs.restrict_public_buckets,
    ])
    error_message = "The bucket must be closed to the public."
  }
  assert {
    condition     = aws_s3_bucket_cors_configuration.blobs.cors_rule != null && aws_launch_template.runners.metadata_options[0].http_tokens == "required" && aws_launch_template.runners.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "A runner's container must not reach the machine's own role."
  }
  assert {
    condition     = toset(keys(aws_ecs_task_definition.registry)) == toset(["server", "dispatcher", "migrate"])
    error_message = "Three commands of one image."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.clients) == 1 && aws_lb_listener.https.port == 443
    error_message = "Clients come by HTTPS only."
  }
}

run "for_a_try" {
  command = plan
  variables {
    deletion_protection = false
    runners             = { spot = false }
    allowed_cidrs       = ["203.0.113.0/24", "198.51.100.7/32"]
  }
  assert {
    condition     = aws_s3_bucket.blobs.force_destroy && aws_db_instance.database.skip_final_snapshot && !aws_lb.registry.enable_deletion_protection
    error_message = "Everything can be destroyed again."
  }
  assert {
    condition     = aws_batch_compute_environment.runners.compute_resources[0].type == "EC2" && length(aws_vpc_security_group_ingress_rule.clients) == 2
    error_message = "Machines on demand, and two ranges of clients."
  }
}

run "what_is_refused" {
  command = plan
  variables {
    name                      = "Port_LLM"
    bucket_name               = "with.dots"
    vpc_id                    = "portllm"
    private_subnet_ids        = ["subnet-1"]
    public_subnet_ids         = []
    allowed_cidrs             = ["everybody"]
    public_url                = "https://models.example/"
    certificate_arn           = "models.example"
    browser_origins           = ["*"]
    server_image              = "portllm/server:latest"
    runner_image              = "registry.example:5000/portllm/runner"
    server_count              = 0
    server_size               = { cpu = 2000, memory = 4096 }
    database                  = { backup_days = 0 }
    database_password_version = 0
    runners                   = { instance_types = [] }
    log_days                  = 2
  }
  expect_failures = [
    var.name, var.bucket_name, var.vpc_id, var.private_subnet_ids, var.public_subnet_ids, var.allowed_cidrs, var.public_url, var.certificate_arn, var.browser_origins,
    var.server_image, var.runner_image, var.server_count, var.server_size, var.database, var.database_password_version, var.runners, var.log_days,
  ]
}
