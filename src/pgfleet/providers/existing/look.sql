-- What a server says of itself, whoever asks: nothing here needs more than a login. CASE is not evaluated early: the functions
-- are volatile. A replica tells its source to members of pg_monitor only, but to everybody that it has one.
select r.recovering,
       r.recovering and exists (select from pg_stat_wal_receiver) as receiving,
       pg_wal_lsn_diff(case when r.recovering then coalesce(pg_last_wal_replay_lsn(), '0/0') else pg_current_wal_flush_lsn() end,
                       '0/0')::bigint as position,
       case when r.recovering then (select greatest(c.timeline_id, v.min_recovery_end_timeline)
                                    from pg_control_checkpoint() c, pg_control_recovery() v)
            else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end as timeline,
       (select system_identifier from pg_control_system()) as system,
       pg_postmaster_start_time() as started,
       current_setting('server_version_num')::int as version,
       current_user as "user",
       current_database() as database,
       has_database_privilege(current_database(), 'create') as may_create,
       n.oid is not null as has_schema,
       coalesce(pg_has_role(n.nspowner, 'usage'), false) as owns_schema,
       coalesce(has_schema_privilege(n.oid, 'usage')
                and has_table_privilege(own.shard, 'select'), false) as tells_shard,
       coalesce(has_schema_privilege(n.oid, 'usage')
                and has_table_privilege(own.placement, 'select'), false) as tells_placement
from (select pg_is_in_recovery() as recovering offset 0) r
left join pg_namespace n on n.nspname = 'pgfleet'
left join lateral (
    select max(c.oid) filter (where c.relname = 'shard') as shard, max(c.oid) filter (where c.relname = 'placement') as placement
    from pg_class c where c.relnamespace = n.oid and c.relname in ('shard', 'placement')
) own on true
