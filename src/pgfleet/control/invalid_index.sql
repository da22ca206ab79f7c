-- What CREATE INDEX CONCURRENTLY leaves behind when it is stopped: an index that is never used, kept up by every write, and
-- taken by IF NOT EXISTS for the one that was wanted. $1: its name; $2: its table.
select format('drop index concurrently if exists %I.%I', n.nspname, c.relname)
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_namespace n on n.oid = c.relnamespace
where c.relname = $1 and i.indrelid = to_regclass($2) and not i.indisvalid
