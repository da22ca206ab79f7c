-- What led to the timeline that this primary writes: its history file, which was written before the first record of the timeline.
-- A file of the server is a superuser's to read. So this belongs to one, takes nothing from its caller, and reads this one only.
create or replace function pgfleet.timelines(out timeline integer, out ended pg_lsn) returns setof record
    language sql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
    select split_part(line, E'\t', 1)::integer, split_part(line, E'\t', 2)::pg_lsn
    from regexp_split_to_table(
        pg_read_file('pg_wal/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || '.history', 0, 1048576, true),
        '\n'
    ) line
    where line ~ '^[0-9]+\t'
$$;

revoke execute on function pgfleet.timelines() from public;
grant execute on function pgfleet.timelines() to pgfleet_app, pgfleet_monitor;
