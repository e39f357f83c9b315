resource "aws_cloudwatch_log_group" "registry" {
  name              = "/${var.name}/registry"
  retention_in_days = var.log_days
}

resource "aws_ecs_cluster" "registry" {
  name = var.name
}

locals {
  # Fargate for all three: the dispatcher answers no HTTP, which App Runner would ask of it.
  roles_of_the_image = {
    server     = { command = ["node", "api/server.ts"], cpu = var.server_size.cpu, memory = var.server_size.memory, ports = [8080] }
    dispatcher = { command = ["node", "api/dispatcher.ts"], cpu = 256, memory = 512, ports = [] }
    migrate    = { command = ["node", "api/server.ts", "migrate"], cpu = 256, memory = 512, ports = [] }
  }
  database_url = "postgresql://portllm@${aws_db_instance.database.endpoint}/portllm?sslmode=verify-full"
}

resource "aws_ecs_task_definition" "registry" {
  for_each                 = local.roles_of_the_image
  family                   = "${var.name}-${each.key}"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = each.value.cpu
  memory                   = each.value.memory
  task_role_arn            = aws_iam_role.registry.arn
  execution_role_arn       = aws_iam_role.start_registry.arn
  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }
  volume {
    name = "data"
  }
  container_definitions = jsonencode([{
    name                   = each.key
    image                  = var.server_image
    command                = each.value.command
    essential              = true
    readonlyRootFilesystem = true
    portMappings           = [for port in each.value.ports : { containerPort = port, protocol = "tcp" }]
    mountPoints            = [{ sourceVolume = "data", containerPath = "/data", readOnly = false }]
    environment = [
      { name = "DATABASE_URL", value = local.database_url },
      { name = "PORTLLM_PUBLIC_URL", value = var.public_url },
      { name = "PORTLLM_S3_BUCKET", value = aws_s3_bucket.blobs.bucket },
      { name = "PORTLLM_S3_REGION", value = local.region },
      { name = "PORTLLM_MIGRATE", value = "expanded" },
      { name = "PORTLLM_RUNNERS", value = "false" },
      { name = "PORTLLM_SUPERVISE", value = "false" },
      { name = "PORTLLM_DRAIN_SECONDS", value = "15" },
    ]
    # Both database clients take it where the URL has none.
    secrets     = [{ name = "PGPASSWORD", valueFrom = module.database_password.secret_arn }]
    stopTimeout = 60
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.registry.name
        awslogs-region        = local.region
        awslogs-stream-prefix = each.key
      }
    }
  }])
  depends_on = [module.database_password]
}

resource "aws_ecs_service" "server" {
  name                              = "server"
  cluster                           = aws_ecs_cluster.registry.id
  task_definition                   = aws_ecs_task_definition.registry["server"].arn
  desired_count                     = var.server_count
  launch_type                       = "FARGATE"
  health_check_grace_period_seconds = 60
  network_configuration {
    subnets         = var.private_subnet_ids
    security_groups = [aws_security_group.registry.id]
  }
  load_balancer {
    target_group_arn = aws_lb_target_group.server.arn
    container_name   = "server"
    container_port   = 8080
  }
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  depends_on = [aws_lb_listener.https]
}

resource "aws_ecs_service" "dispatcher" {
  name            = "dispatcher"
  cluster         = aws_ecs_cluster.registry.id
  task_definition = aws_ecs_task_definition.registry["dispatcher"].arn
  desired_count   = 1
  launch_type     = "FARGATE"
  network_configuration {
    subnets         = var.private_subnet_ids
    security_groups = [aws_security_group.registry.id]
  }
  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
}

resource "aws_lb" "registry" {
  name                       = var.name
  load_balancer_type         = "application"
  subnets                    = var.public_subnet_ids
  security_groups            = [aws_security_group.load_balancer.id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.deletion_protection
  # A long poll of a runner takes 25 seconds; a first byte of a merged file may take longer.
  idle_timeout = 120
}

resource "aws_lb_target_group" "server" {
  name                 = "${var.name}-server"
  target_type          = "ip"
  vpc_id               = var.vpc_id
  port                 = 8080
  protocol             = "HTTP"
  deregistration_delay = 60
  health_check {
    path                = "/readyz"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.registry.arn
  port              = 443
  protocol          = "HTTPS"
  certificate_arn   = var.certificate_arn
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.server.arn
  }
}
