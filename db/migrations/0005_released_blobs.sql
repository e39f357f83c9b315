ALTER TABLE "blobs" ADD COLUMN "released_at" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "upload_files_held" ON "upload_files" USING btree ("sha256") WHERE "upload_files"."held";