resource "aws_cloudwatch_log_group" "runners" {
  name              = "/${var.name}/runners"
  retention_in_days = var.log_days
}

# Its value is put by hand, once the registry runs: a token with the scope "runner" (docs/operations/deploy.md).
resource "aws_secretsmanager_secret" "runner_token" {
  name                    = "${var.name}/runner-token"
  description             = "Token with the scope runner, the only credential of a runner."
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_launch_template" "runners" {
  name = "${var.name}-runners"
  metadata_options {
    http_tokens = "required"
    # Containers are one hop further away: the machine's own role is out of their reach.
    http_put_response_hop_limit = 1
  }
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_size           = var.runners.disk_gib
      volume_type           = "gp3"
      encrypted             = "true"
      delete_on_termination = "true"
    }
  }
}

resource "aws_batch_compute_environment" "runners" {
  name  = "${var.name}-runners"
  type  = "MANAGED"
  state = "ENABLED"
  compute_resources {
    type                = var.runners.spot ? "SPOT" : "EC2"
    allocation_strategy = var.runners.spot ? "SPOT_PRICE_CAPACITY_OPTIMIZED" : "BEST_FIT_PROGRESSIVE"
    min_vcpus           = 0
    max_vcpus           = var.runners.max_vcpus
    instance_type       = var.runners.instance_types
    instance_role       = aws_iam_instance_profile.machines.arn
    subnets             = var.private_subnet_ids
    security_group_ids  = [aws_security_group.runners.id]
    ec2_configuration {
      image_type = "ECS_AL2023_NVIDIA"
    }
    launch_template {
      launch_template_id = aws_launch_template.runners.id
      version            = aws_launch_template.runners.latest_version
    }
  }
  depends_on = [aws_iam_role_policy_attachment.machines]
}

resource "aws_batch_job_queue" "runners" {
  name     = "${var.name}-runners"
  state    = "ENABLED"
  priority = 1
  compute_environment_order {
    order               = 1
    compute_environment = aws_batch_compute_environment.runners.arn
  }
}

resource "aws_batch_job_definition" "runner" {
  name                  = "${var.name}-runner"
  type                  = "container"
  platform_capabilities = ["EC2"]
  propagate_tags        = true
  # A spot machine that is taken away costs one attempt of a job, which another runner claims again.
  retry_strategy {
    attempts = 3
    evaluate_on_exit {
      on_status_reason = "Host EC2*"
      action           = "RETRY"
    }
    evaluate_on_exit {
      on_reason = "*"
      action    = "EXIT"
    }
  }
  timeout {
    attempt_duration_seconds = 12 * 3600
  }
  container_properties = jsonencode({
    image                  = var.runner_image
    command                = ["--idle-seconds", "300"]
    jobRoleArn             = aws_iam_role.runner.arn
    executionRoleArn       = aws_iam_role.start_runner.arn
    readonlyRootFilesystem = true
    privileged             = false
    resourceRequirements = [
      { type = "VCPU", value = "4" },
      { type = "MEMORY", value = "14000" },
      { type = "GPU", value = "1" },
    ]
    environment = [{ name = "PORTLLM_REGISTRY", value = var.public_url }]
    secrets     = [{ name = "PORTLLM_RUNNER_TOKEN", valueFrom = aws_secretsmanager_secret.runner_token.arn }]
    volumes     = [{ name = "scratch", host = {} }]
    mountPoints = [{ sourceVolume = "scratch", containerPath = "/scratch", readOnly = false }]
    linuxParameters = {
      initProcessEnabled = true
      tmpfs              = [{ containerPath = "/tmp", size = 1024 }]
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.runners.name
        awslogs-region        = local.region
        awslogs-stream-prefix = "runner"
      }
    }
  })
}
