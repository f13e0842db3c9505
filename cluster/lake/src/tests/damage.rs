//! Bytes that are not those that were written.

use object_store::{ObjectStoreExt, PutPayload, path::Path};
use proptest::prelude::*;

use super::*;
use crate::{LakeError, Result, Series};

/// Everything that reads.
async fn read_all(store: &Arc<dyn ObjectStore>) -> Result<(usize, usize, Vec<u64>)> {
    let lake = Lake::open(store.clone(), small()).await?;
    let manifest = lake.manifest();
    let mut seen = 0;
    lake.scan(&manifest, &Filter::default(), &mut |_| seen += 1).await?;
    let (start, end) = (Timestamp::MIN, Timestamp::MAX);
    let series = Series { tenant: None, device: "press-1".into(), metric: "temperature".into(), start, end };
    let points = lake.points(&manifest, &series, usize::MAX).await?.points.len();
    let steps = lake.aggregate(&manifest, &series, Some(Span::from_secs(3600)), usize::MAX).await?;
    Ok((seen, points, steps.steps.iter().map(|(_, partial)| partial.count).collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_damaged_object_is_an_error_that_names_it(
        object in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 0u8.., cut in any::<bool>(),
    ) {
        block_on(async {
            let store = memory();
            let lake = open(&store).await;
            lake.append(&records(1, 20), &[taken(1, 20)], T0).await.unwrap();
            let whole = read_all(&store).await.unwrap();
            let mut paths: Vec<String> = lake.manifest().files.iter().map(|file| file.path.clone()).collect();
            paths.push(lake.manifest().path());
            let path = &paths[object.index(paths.len())];
            let place = Path::parse(path).unwrap();
            let mut bytes = store.get(&place).await.unwrap().bytes().await.unwrap().to_vec();
            let at = at.index(bytes.len());
            match (flip, cut) {
                (0, false) => bytes.insert(at, 0),
                (_, false) => bytes[at] ^= flip,
                (_, true) => bytes.truncate(at),
            }
            store.put(&place, PutPayload::from(bytes)).await.unwrap();
            match read_all(&store).await {
                Err(LakeError::Damaged { path: named, .. } | LakeError::Store { path: named, .. }) => assert_eq!(&named, path),
                Err(other) => panic!("{other}"),
                // What is not needed, as a byte behind the end, need not be noticed.
                Ok(read) => assert_eq!(read, whole),
            }
        });
    }
}

#[test]
fn a_file_that_is_gone_is_an_error() {
    block_on(async {
        let store = memory();
        let lake = open(&store).await;
        lake.append(&records(1, 20), &[taken(1, 20)], T0).await.unwrap();
        let path = lake.manifest().files[0].path.clone();
        store.delete(&Path::parse(&path).unwrap()).await.unwrap();
        assert!(matches!(read_all(&store).await, Err(LakeError::Store { path: named, .. }) if named == path));
    });
}
