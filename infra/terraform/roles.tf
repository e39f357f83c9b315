# Who may do what. A runner's own role has no permission at all: it works with presigned URLs and the token of one attempt.

data "aws_iam_policy_document" "tasks" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "blobs" {
  statement {
    sid       = "Objects"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${aws_s3_bucket.blobs.arn}/*"]
  }
  statement {
    sid       = "Listing"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.blobs.arn]
  }
}

resource "aws_iam_role" "registry" {
  name               = "${var.name}-registry"
  description        = "Servers and dispatcher at work: the blobs, nothing else"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy" "registry" {
  name   = "blobs"
  role   = aws_iam_role.registry.id
  policy = data.aws_iam_policy_document.blobs.json
}

resource "aws_iam_role" "runner" {
  name               = "${var.name}-runner"
  description        = "Runners at work: no permission of any kind"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

# Execution roles: what ECS itself does to start a container.
resource "aws_iam_role" "start_registry" {
  name               = "${var.name}-start-registry"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role" "start_runner" {
  name               = "${var.name}-start-runner"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

data "aws_iam_policy_document" "start" {
  for_each = {
    registry = { secret = module.database_password.secret_arn, logs = aws_cloudwatch_log_group.registry.arn }
    runner   = { secret = aws_secretsmanager_secret.runner_token.arn, logs = aws_cloudwatch_log_group.runners.arn }
  }
  statement {
    sid       = "OneSecret"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [each.value.secret]
  }
  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${each.value.logs}:*"]
  }
  statement {
    sid       = "ImageLogin"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    sid       = "Images"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = ["arn:${local.partition}:ecr:${local.region}:${local.account}:repository/*"]
  }
}

resource "aws_iam_role_policy" "start_registry" {
  name   = "start"
  role   = aws_iam_role.start_registry.id
  policy = data.aws_iam_policy_document.start["registry"].json
}

resource "aws_iam_role_policy" "start_runner" {
  name   = "start"
  role   = aws_iam_role.start_runner.id
  policy = data.aws_iam_policy_document.start["runner"].json
}

# The GPU machines join the cluster that Batch keeps for them.
data "aws_iam_policy_document" "machines" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "machines" {
  name               = "${var.name}-runner-machines"
  assume_role_policy = data.aws_iam_policy_document.machines.json
}

resource "aws_iam_role_policy_attachment" "machines" {
  role       = aws_iam_role.machines.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_instance_profile" "machines" {
  name = "${var.name}-runner-machines"
  role = aws_iam_role.machines.name
}
