CREATE TABLE "evaluations" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"identity" text NOT NULL,
	"target_version_id" uuid NOT NULL,
	"patch_version_id" uuid,
	"derivation_id" text,
	"spec" jsonb NOT NULL,
	"data_organization_id" uuid,
	"state" "derivation_state" DEFAULT 'queued' NOT NULL,
	"job_id" uuid,
	"result" jsonb,
	"created_by" uuid NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"ready_at" timestamp with time zone
);
--> statement-breakpoint
ALTER TABLE "files" DROP CONSTRAINT "files_owner";--> statement-breakpoint
ALTER TABLE "files" ADD COLUMN "evaluation_id" uuid;--> statement-breakpoint
ALTER TABLE "jobs" ADD COLUMN "evaluation_id" uuid;--> statement-breakpoint
ALTER TABLE "evaluations" ADD CONSTRAINT "evaluations_target_version_id_model_versions_id_fk" FOREIGN KEY ("target_version_id") REFERENCES "public"."model_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "evaluations" ADD CONSTRAINT "evaluations_patch_version_id_patch_versions_id_fk" FOREIGN KEY ("patch_version_id") REFERENCES "public"."patch_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "evaluations" ADD CONSTRAINT "evaluations_derivation_id_derivations_id_fk" FOREIGN KEY ("derivation_id") REFERENCES "public"."derivations"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "evaluations" ADD CONSTRAINT "evaluations_data_organization_id_organizations_id_fk" FOREIGN KEY ("data_organization_id") REFERENCES "public"."organizations"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "evaluations" ADD CONSTRAINT "evaluations_created_by_users_id_fk" FOREIGN KEY ("created_by") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "evaluations_identity" ON "evaluations" USING btree ("identity");--> statement-breakpoint
CREATE INDEX "evaluations_target" ON "evaluations" USING btree ("target_version_id");--> statement-breakpoint
CREATE INDEX "evaluations_patch" ON "evaluations" USING btree ("patch_version_id");--> statement-breakpoint
CREATE INDEX "evaluations_derivation" ON "evaluations" USING btree ("derivation_id");--> statement-breakpoint
ALTER TABLE "files" ADD CONSTRAINT "files_evaluation_id_evaluations_id_fk" FOREIGN KEY ("evaluation_id") REFERENCES "public"."evaluations"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "jobs" ADD CONSTRAINT "jobs_evaluation_id_evaluations_id_fk" FOREIGN KEY ("evaluation_id") REFERENCES "public"."evaluations"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "files_evaluation" ON "files" USING btree ("evaluation_id","path");--> statement-breakpoint
CREATE INDEX "jobs_evaluation" ON "jobs" USING btree ("evaluation_id");--> statement-breakpoint
ALTER TABLE "files" ADD CONSTRAINT "files_owner" CHECK (num_nonnulls("files"."model_version_id", "files"."patch_version_id", "files"."derivation_id", "files"."evaluation_id") = 1);