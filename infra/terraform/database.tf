module "database_password" {
  source                  = "./password"
  name                    = "${var.name}/database-password"
  description             = "Password of the user portllm of the database."
  version_number          = var.database_password_version
  recovery_window_in_days = var.deletion_protection ? 30 : 0
}

resource "aws_db_subnet_group" "database" {
  name       = var.name
  subnet_ids = var.private_subnet_ids
}

resource "aws_db_parameter_group" "database" {
  name   = "${var.name}-postgres17"
  family = "postgres17"
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
}

resource "aws_db_instance" "database" {
  identifier                      = var.name
  engine                          = "postgres"
  engine_version                  = "17"
  instance_class                  = var.database.instance_class
  allocated_storage               = var.database.storage_gib
  max_allocated_storage           = 10 * var.database.storage_gib
  storage_type                    = "gp3"
  storage_encrypted               = true
  multi_az                        = var.database.multi_az
  db_name                         = "portllm"
  username                        = "portllm"
  password_wo                     = module.database_password.value
  password_wo_version             = module.database_password.version_number
  ca_cert_identifier              = "rds-ca-rsa2048-g1"
  db_subnet_group_name            = aws_db_subnet_group.database.name
  parameter_group_name            = aws_db_parameter_group.database.name
  vpc_security_group_ids          = [aws_security_group.database.id]
  publicly_accessible             = false
  auto_minor_version_upgrade      = true
  backup_retention_period         = var.database.backup_days
  copy_tags_to_snapshot           = true
  performance_insights_enabled    = true
  enabled_cloudwatch_logs_exports = ["postgresql"]
  deletion_protection             = var.deletion_protection
  skip_final_snapshot             = !var.deletion_protection
  final_snapshot_identifier       = var.deletion_protection ? "${var.name}-last" : null
}
