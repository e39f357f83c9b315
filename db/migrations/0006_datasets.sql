CREATE TABLE "dataset_versions" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"dataset_id" uuid NOT NULL,
	"version" text NOT NULL,
	"state" "publish_state" DEFAULT 'draft' NOT NULL,
	"digest" text,
	"manifest" jsonb,
	"rejection" jsonb,
	"created_by" uuid NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"published_at" timestamp with time zone
);
--> statement-breakpoint
CREATE TABLE "datasets" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"organization_id" uuid NOT NULL,
	"name" text NOT NULL,
	"description" text DEFAULT '' NOT NULL,
	"visibility" "visibility" DEFAULT 'public' NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "files" DROP CONSTRAINT "files_owner";--> statement-breakpoint
ALTER TABLE "upload_files" DROP CONSTRAINT "upload_files_owner";--> statement-breakpoint
ALTER TABLE "files" ADD COLUMN "dataset_version_id" uuid;--> statement-breakpoint
ALTER TABLE "jobs" ADD COLUMN "dataset_version_id" uuid;--> statement-breakpoint
ALTER TABLE "trainings" ADD COLUMN "dataset_version_id" uuid;--> statement-breakpoint
ALTER TABLE "upload_files" ADD COLUMN "dataset_version_id" uuid;--> statement-breakpoint
ALTER TABLE "dataset_versions" ADD CONSTRAINT "dataset_versions_dataset_id_datasets_id_fk" FOREIGN KEY ("dataset_id") REFERENCES "public"."datasets"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "dataset_versions" ADD CONSTRAINT "dataset_versions_created_by_users_id_fk" FOREIGN KEY ("created_by") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "datasets" ADD CONSTRAINT "datasets_organization_id_organizations_id_fk" FOREIGN KEY ("organization_id") REFERENCES "public"."organizations"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "dataset_versions_version" ON "dataset_versions" USING btree ("dataset_id",lower("version"));--> statement-breakpoint
CREATE UNIQUE INDEX "datasets_name" ON "datasets" USING btree ("organization_id",lower("name"));--> statement-breakpoint
ALTER TABLE "files" ADD CONSTRAINT "files_dataset_version_id_dataset_versions_id_fk" FOREIGN KEY ("dataset_version_id") REFERENCES "public"."dataset_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "jobs" ADD CONSTRAINT "jobs_dataset_version_id_dataset_versions_id_fk" FOREIGN KEY ("dataset_version_id") REFERENCES "public"."dataset_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "trainings" ADD CONSTRAINT "trainings_dataset_version_id_dataset_versions_id_fk" FOREIGN KEY ("dataset_version_id") REFERENCES "public"."dataset_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "upload_files" ADD CONSTRAINT "upload_files_dataset_version_id_dataset_versions_id_fk" FOREIGN KEY ("dataset_version_id") REFERENCES "public"."dataset_versions"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "files_dataset_version" ON "files" USING btree ("dataset_version_id","path");--> statement-breakpoint
CREATE INDEX "upload_files_dataset_version" ON "upload_files" USING btree ("dataset_version_id");--> statement-breakpoint
ALTER TABLE "files" ADD CONSTRAINT "files_owner" CHECK (num_nonnulls("files"."model_version_id", "files"."patch_version_id", "files"."dataset_version_id", "files"."derivation_id", "files"."evaluation_id") = 1);--> statement-breakpoint
ALTER TABLE "upload_files" ADD CONSTRAINT "upload_files_owner" CHECK (num_nonnulls("upload_files"."model_version_id", "upload_files"."patch_version_id", "upload_files"."dataset_version_id") = 1);