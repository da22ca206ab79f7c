-- tables: audit_logs

-- Who did what; partitioned by month like user_sessions. No foreign key: a log outlives the user it speaks of.
create table audit_logs (
    region  text        not null,
    id      uuid        not null default uuid_v7(),
    at      timestamptz not null default now(),
    actor   uuid,
    action  text        not null check (action <> ''),
    subject text        not null default '',
    detail  jsonb       not null default '{}',

    primary key (region, id, at)
) partition by range (at);

create index audit_logs_of_actor on audit_logs (region, actor, at desc);
-- Rows come in the order of their time: a few kB of index find a day in a month of them.
create index audit_logs_by_time on audit_logs using brin (at);

do $$
declare
    month date;
begin
    for month in
        select (date_trunc('month', now() at time zone 'UTC') + make_interval(months => n))::date from generate_series(-1, 6) as n
    loop
        execute format(
            'create table %I partition of audit_logs for values from (%L) to (%L)',
            'audit_logs_p' || to_char(month, 'YYYYMMDD'),
            month || ' 00:00:00+00',
            (month + interval '1 month')::date || ' 00:00:00+00'
        );
    end loop;
end $$;
