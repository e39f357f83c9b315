CREATE TABLE "trainings" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"model_version_id" uuid,
	"patch_version_id" uuid,
	"spec" jsonb NOT NULL,
	"job_id" uuid NOT NULL,
	"record" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "trainings_owner" CHECK (num_nonnulls("trainings"."model_version_id", "trainings"."patch_version_id") = 1)
);
--> statement-breakpoint
ALTER TABLE "trainings" ADD CONSTRAINT "trainings_model_version_id_model_versions_id_fk" FOREIGN KEY ("model_version_id") REFERENCES "public"."model_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "trainings" ADD CONSTRAINT "trainings_patch_version_id_patch_versions_id_fk" FOREIGN KEY ("patch_version_id") REFERENCES "public"."patch_versions"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "trainings_model_version" ON "trainings" USING btree ("model_version_id");--> statement-breakpoint
CREATE UNIQUE INDEX "trainings_patch_version" ON "trainings" USING btree ("patch_version_id");