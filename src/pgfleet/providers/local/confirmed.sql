-- How far the replicas have confirmed what this primary writes: no COMMIT that waited for its quorum was answered beyond that. And
-- for how many seconds that has been so. Who is connected for less may have confirmed more before, in an earlier connection; an
-- answer that is older than these seconds says nothing. None of both, where one of the quorum's replicas is not there, or two
-- connections have one name.
-- Who replicates is a monitor's to see. So this belongs to a superuser, takes nothing from its caller, and tells these two alone.
create or replace function pgfleet.confirmed(out lsn pg_lsn, out settled double precision)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    -- As Patroni writes it in its quorum mode: ANY 1 ("east-2","west-1")
    names constant text := current_setting('synchronous_standby_names');
    quorum constant integer := substring(names from '^ANY ([0-9]+) \(');
begin
    if quorum is null or current_setting('synchronous_commit') not in ('on', 'remote_apply') or pg_is_in_recovery() then
        return;
    end if;
    -- Three seconds: that another list is in force is told to those who commit by the checkpointer, and that may be at work.
    select (array_agg(flush_lsn order by flush_lsn desc))[quorum],
           extract(epoch from clock_timestamp() - greatest(max(backend_start), pg_conf_load_time() + interval '3 s'))
    into lsn, settled
    from pg_stat_replication
    where sync_state = 'quorum' and state = 'streaming' and flush_lsn is not null
    having count(*) = cardinality(string_to_array(names, ',')) and count(distinct application_name) = count(*);
end
$$;

revoke execute on function pgfleet.confirmed() from public;
grant execute on function pgfleet.confirmed() to pgfleet_app, pgfleet_monitor;
