CREATE TABLE "analyses" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"patch_version_id" uuid NOT NULL,
	"target_version_id" uuid NOT NULL,
	"state" "derivation_state" DEFAULT 'queued' NOT NULL,
	"job_id" uuid,
	"result" jsonb,
	"created_by" uuid NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"ready_at" timestamp with time zone
);
--> statement-breakpoint
ALTER TABLE "jobs" ADD COLUMN "analysis_id" uuid;--> statement-breakpoint
ALTER TABLE "analyses" ADD CONSTRAINT "analyses_patch_version_id_patch_versions_id_fk" FOREIGN KEY ("patch_version_id") REFERENCES "public"."patch_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "analyses" ADD CONSTRAINT "analyses_target_version_id_model_versions_id_fk" FOREIGN KEY ("target_version_id") REFERENCES "public"."model_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "analyses" ADD CONSTRAINT "analyses_created_by_users_id_fk" FOREIGN KEY ("created_by") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "analyses_pair" ON "analyses" USING btree ("patch_version_id","target_version_id");--> statement-breakpoint
CREATE INDEX "analyses_target" ON "analyses" USING btree ("target_version_id");--> statement-breakpoint
ALTER TABLE "jobs" ADD CONSTRAINT "jobs_analysis_id_analyses_id_fk" FOREIGN KEY ("analysis_id") REFERENCES "public"."analyses"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "jobs_analysis" ON "jobs" USING btree ("analysis_id");