-- Ids that sort by the time they were made (RFC 9562, version 7), so that new rows land at the end of an index. No
-- header: every shard has it. PostgreSQL 18 has uuidv7() of its own.

-- 48 bits of Unix time in milliseconds | 7 | 12 bits of the millisecond's fraction (RFC 9562, 6.2, method 3) | 10 |
-- 62 random bits. gen_random_uuid() has the variant's bits, 10, in place already.
create function uuid_v7() returns uuid
    language sql volatile parallel safe
    return (
        select encode(
            int8send((floor(ms)::bigint << 16) | x'7000'::bigint | floor((ms - floor(ms)) * 4096)::bigint)
            || substring(uuid_send(gen_random_uuid()) from 9),
            'hex'
        )::uuid
        from (select extract(epoch from clock_timestamp()) * 1000 as ms) as clock
    );

comment on function uuid_v7() is 'A UUID of version 7: ids made later sort later, to a quarter of a microsecond on one server';

-- When an id was made, to the millisecond; null for an id of another version.
create function uuid_v7_time(id uuid) returns timestamptz
    language sql immutable strict parallel safe
    return case when get_byte(uuid_send(id), 6) >> 4 = 7 then to_timestamp(
        (('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint) / 1000.0
    ) end;
