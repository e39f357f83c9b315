variable "name" {
  description = "Begins the name of everything that is made."
  type        = string
  default     = "portllm"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name: 3 to 20 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "bucket_name" {
  description = "Bucket of the blobs: unique among all of AWS."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name: 3 to 63 lower-case letters, digits and hyphens; no dots, since TLS to the bucket's own host name would fail."
  }
}

variable "vpc_id" {
  description = "Network that everything runs in."
  type        = string
  validation {
    condition     = startswith(var.vpc_id, "vpc-")
    error_message = "vpc_id: the id of a VPC, vpc-…"
  }
}

variable "private_subnet_ids" {
  description = "Subnets of the tasks, the database and the runners, with a way out (NAT) and, better, an S3 gateway endpoint."
  type        = list(string)
  validation {
    condition     = length(var.private_subnet_ids) >= 2 && alltrue([for id in var.private_subnet_ids : startswith(id, "subnet-")])
    error_message = "private_subnet_ids: at least two subnets, in different availability zones."
  }
}

variable "public_subnet_ids" {
  description = "Subnets of the load balancer."
  type        = list(string)
  validation {
    condition     = length(var.public_subnet_ids) >= 2 && alltrue([for id in var.public_subnet_ids : startswith(id, "subnet-")])
    error_message = "public_subnet_ids: at least two subnets, in different availability zones."
  }
}

variable "allowed_cidrs" {
  description = "Who reaches the registry. Runners reach it too: leave their NAT addresses in."
  type        = list(string)
  default     = ["0.0.0.0/0"]
  validation {
    condition     = length(var.allowed_cidrs) > 0 && alltrue([for cidr in var.allowed_cidrs : can(cidrhost(cidr, 0))])
    error_message = "allowed_cidrs: one or more ranges such as 203.0.113.0/24."
  }
}

variable "public_url" {
  description = "How clients and runners reach the registry; its name must point to the load balancer (output load_balancer)."
  type        = string
  validation {
    condition     = can(regex("^https://[^/]+$", var.public_url))
    error_message = "public_url: https:// and a host, without a path or a trailing slash."
  }
}

variable "certificate_arn" {
  description = "Certificate of public_url's host, in AWS Certificate Manager."
  type        = string
  validation {
    condition     = can(regex("^arn:aws[a-z-]*:acm:", var.certificate_arn))
    error_message = "certificate_arn: arn:aws:acm:…"
  }
}

variable "browser_origins" {
  description = "Web pages of other hosts that may use presigned URLs of the bucket. The registry's own pages always may."
  type        = list(string)
  default     = []
  validation {
    condition     = alltrue([for origin in var.browser_origins : can(regex("^https?://[^/*]+$", origin))])
    error_message = "browser_origins: origins such as https://models.example, without a path or a wildcard."
  }
}

variable "server_image" {
  description = "Image of infra/Dockerfile."
  type        = string
  validation {
    condition     = can(regex("(:[^/]+|@sha256:[0-9a-f]{64})$", var.server_image)) && !endswith(var.server_image, ":latest")
    error_message = "server_image: with a tag other than latest, or a digest."
  }
}

variable "runner_image" {
  description = "Image of gpu-runner/Dockerfile."
  type        = string
  validation {
    condition     = can(regex("(:[^/]+|@sha256:[0-9a-f]{64})$", var.runner_image)) && !endswith(var.runner_image, ":latest")
    error_message = "runner_image: with a tag other than latest, or a digest."
  }
}

variable "server_count" {
  description = "Servers behind the load balancer."
  type        = number
  default     = 2
  validation {
    condition     = var.server_count >= 1 && floor(var.server_count) == var.server_count
    error_message = "server_count: a whole number from 1."
  }
}

variable "server_size" {
  description = "CPU units and MiB of one server. Merge on read uses every core."
  type        = object({ cpu = number, memory = number })
  default     = { cpu = 2048, memory = 4096 }
  validation {
    condition     = contains([256, 512, 1024, 2048, 4096, 8192, 16384], var.server_size.cpu) && var.server_size.memory >= 2 * var.server_size.cpu
    error_message = "server_size: a CPU size of Fargate (256 … 16384), and at least twice as many MiB."
  }
}

variable "database" {
  description = "Instance class, GiB of storage, days of backups, a standby in a second zone."
  type = object({
    instance_class = optional(string, "db.t4g.medium")
    storage_gib    = optional(number, 50)
    backup_days    = optional(number, 14)
    multi_az       = optional(bool, true)
  })
  default = {}
  validation {
    condition     = startswith(var.database.instance_class, "db.") && var.database.storage_gib >= 20 && var.database.backup_days >= 1 && var.database.backup_days <= 35
    error_message = "database: instance_class db.…, storage_gib from 20, backup_days 1 to 35."
  }
}

variable "database_password_version" {
  description = "Raise it by one to give the database a new password (docs/operations/keys.md)."
  type        = number
  default     = 1
  validation {
    condition     = var.database_password_version >= 1 && floor(var.database_password_version) == var.database_password_version
    error_message = "database_password_version: a whole number from 1."
  }
}

variable "runners" {
  description = "GPU machines: instance types to choose from, most virtual CPUs at once, spot or on demand."
  type = object({
    instance_types = optional(list(string), ["g6.xlarge", "g6.2xlarge", "g5.xlarge", "g5.2xlarge"])
    max_vcpus      = optional(number, 32)
    spot           = optional(bool, true)
    disk_gib       = optional(number, 200)
  })
  default = {}
  validation {
    condition     = length(var.runners.instance_types) > 0 && var.runners.max_vcpus >= 4 && var.runners.disk_gib >= 60
    error_message = "runners: at least one instance type, max_vcpus from 4, disk_gib from 60 (the image and one model)."
  }
}

variable "deletion_protection" {
  description = "Refuses to destroy the database, its last snapshot and a bucket with objects."
  type        = bool
  default     = true
}

variable "log_days" {
  description = "How long CloudWatch keeps the logs."
  type        = number
  default     = 30
  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365], var.log_days)
    error_message = "log_days: a retention that CloudWatch has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180 or 365."
  }
}
