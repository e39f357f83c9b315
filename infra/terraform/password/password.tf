# A random password in Secrets Manager, in no plan and no state.
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

variable "name" {
  description = "Of the secret."
  type        = string
}

variable "description" {
  description = "Of the secret."
  type        = string
}

variable "version_number" {
  description = "A new password is made where it is raised."
  type        = number
}

variable "recovery_window_in_days" {
  description = "How long a destroyed secret can be had back."
  type        = number
}

ephemeral "aws_secretsmanager_random_password" "new" {
  password_length     = 40
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "password" {
  name                    = var.name
  description             = var.description
  recovery_window_in_days = var.recovery_window_in_days
}

resource "aws_secretsmanager_secret_version" "password" {
  secret_id                = aws_secretsmanager_secret.password.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.new.random_password
  secret_string_wo_version = var.version_number
}

# Read back: where no version is made, the new one above was never used.
ephemeral "aws_secretsmanager_secret_version" "password" {
  secret_id = aws_secretsmanager_secret_version.password.secret_id
}

output "value" {
  description = "The password."
  value       = ephemeral.aws_secretsmanager_secret_version.password.secret_string
  ephemeral   = true
}

output "version_number" {
  description = "Of the password that the secret holds."
  value       = aws_secretsmanager_secret_version.password.secret_string_wo_version
}

output "secret_arn" {
  description = "Of the secret."
  value       = aws_secretsmanager_secret.password.arn
}
