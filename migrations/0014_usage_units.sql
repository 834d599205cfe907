-- What is counted and billed in another unit than text tokens: images, characters, audio, searches.
SET LOCAL ROLE nemo_owner;

-- A JSON array of {"unit", "quality", "size", "price"}; NULL: only text tokens have a price. Text in one spelling, so
-- that equal prices are equal text.
ALTER TABLE model_prices ADD COLUMN units text;
ALTER TABLE deployment_prices ADD COLUMN units text;

-- A JSON array of {"unit", "quantity", "quality", "size"}; NULL: nothing but tokens.
ALTER TABLE request_log ADD COLUMN units text;

RESET ROLE;
