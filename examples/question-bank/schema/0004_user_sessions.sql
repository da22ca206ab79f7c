-- tables: user_sessions

-- One partition a month, so that an old month is detached and archived in one statement. There is no default partition:
-- DETACH … CONCURRENTLY is refused while one exists. The partition key has to be in every unique index, as the shard key is.
create table user_sessions (
    region     text        not null,
    id         uuid        not null default uuid_v7(),
    started_at timestamptz not null default now(),
    user_id    uuid        not null,
    subject    text        not null default '',
    ended_at   timestamptz,
    answered   integer     not null default 0 check (answered >= 0),
    correct    integer     not null default 0,

    primary key (region, id, started_at),
    foreign key (region, user_id) references users (region, id) on delete cascade,
    check (correct >= 0 and correct <= answered),
    check (ended_at >= started_at)
) partition by range (started_at);

create index user_sessions_of_user on user_sessions (region, user_id, started_at desc);

-- The month before this one, this one, and six ahead; months are UTC's wherever this runs.
do $$
declare
    month date;
begin
    for month in
        select (date_trunc('month', now() at time zone 'UTC') + make_interval(months => n))::date from generate_series(-1, 6) as n
    loop
        execute format(
            'create table %I partition of user_sessions for values from (%L) to (%L)',
            'user_sessions_p' || to_char(month, 'YYYYMMDD'),
            month || ' 00:00:00+00',
            (month + interval '1 month')::date || ' 00:00:00+00'
        );
    end loop;
end $$;
