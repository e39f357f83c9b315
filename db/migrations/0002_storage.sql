CREATE TYPE "public"."derivation_storage" AS ENUM('computed', 'materialised');--> statement-breakpoint
CREATE TABLE "changed_tensors" (
	"id" uuid PRIMARY KEY DEFAULT gen_random_uuid() NOT NULL,
	"derivation_id" text NOT NULL,
	"position" integer NOT NULL,
	"name" text NOT NULL,
	"digest" text NOT NULL,
	"length" bigint NOT NULL,
	"blob" text
);
--> statement-breakpoint
ALTER TABLE "extents" ALTER COLUMN "blob" DROP NOT NULL;--> statement-breakpoint
ALTER TABLE "derivations" ADD COLUMN "storage" "derivation_storage" DEFAULT 'materialised' NOT NULL;--> statement-breakpoint
ALTER TABLE "derivations" ADD COLUMN "storage_reason" text DEFAULT 'It was merged before there was a choice.' NOT NULL;--> statement-breakpoint
ALTER TABLE "extents" ADD COLUMN "changed_tensor_id" uuid;--> statement-breakpoint
ALTER TABLE "changed_tensors" ADD CONSTRAINT "changed_tensors_derivation_id_derivations_id_fk" FOREIGN KEY ("derivation_id") REFERENCES "public"."derivations"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "changed_tensors" ADD CONSTRAINT "changed_tensors_blob_blobs_sha256_fk" FOREIGN KEY ("blob") REFERENCES "public"."blobs"("sha256") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "changed_tensors_position" ON "changed_tensors" USING btree ("derivation_id","position");--> statement-breakpoint
CREATE INDEX "changed_tensors_blob" ON "changed_tensors" USING btree ("blob");--> statement-breakpoint
ALTER TABLE "extents" ADD CONSTRAINT "extents_changed_tensor_id_changed_tensors_id_fk" FOREIGN KEY ("changed_tensor_id") REFERENCES "public"."changed_tensors"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "extents" ADD CONSTRAINT "extents_source" CHECK (num_nonnulls("extents"."blob", "extents"."changed_tensor_id") = 1);--> statement-breakpoint
INSERT INTO "changed_tensors" ("derivation_id", "position", "name", "digest", "length", "blob")
SELECT d."id", t."position" - 1, t."tensor"->>'name', t."tensor"->>'digest', b."size", b."sha256"
FROM "derivations" d
CROSS JOIN LATERAL jsonb_array_elements(d."receipt"->'tensors') WITH ORDINALITY AS t("tensor", "position")
JOIN "blobs" b ON b."sha256" = substr(t."tensor"->>'digest', 8);--> statement-breakpoint
UPDATE "extents" e SET "blob" = NULL, "changed_tensor_id" = t."id"
FROM "files" f, "changed_tensors" t
WHERE f."id" = e."file_id" AND t."derivation_id" = f."derivation_id" AND e."blob" = t."blob" AND e."offset" = 0 AND e."length" = t."length";--> statement-breakpoint
UPDATE "derivations" SET "receipt" = "receipt" - 'storedBytes' WHERE "receipt" IS NOT NULL;
